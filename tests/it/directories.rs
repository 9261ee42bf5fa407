//! Users that a directory knows: a real slapd, unpacked from Debian's package.

use std::{fs, net::TcpListener, os::unix::fs::chown, path::Path, thread};

use pooler::demo::process::{Guarded, RunAs, TempDir, free_port, wait_until};

use crate::{
    pgbouncer::{Stage, err},
    support::{
        database::{Database, certificates, password_of},
        debian::{here, variables},
        raw::{PATIENCE, Raw},
    },
};

/// A directory with people; `app` is twice in `ou=twice`.
struct Slapd {
    port: u16,
    tls_port: u16,
    _process: Guarded,
    _dir: TempDir,
}

const BASE: &str = "dc=example,dc=net";

fn people() -> String {
    let person = |unit: &str, cn: &str, uid: &str| {
        format!(
            "dn: cn={cn},ou={unit},{BASE}\nobjectClass: inetOrgPerson\ncn: {cn}\nsn: x\nuid: {uid}\n\
             mail: {uid}@example.net\nuserPassword: {}\n\n",
            password_of(uid)
        )
    };
    let unit = |name: &str| format!("dn: ou={name},{BASE}\nobjectClass: organizationalUnit\nou: {name}\n\n");
    [
        format!("dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: x\ndc: example\n\n"),
        unit("people"),
        unit("twice"),
        person("people", "app", "app"),
        person("people", "The other one", "other"),
        person("twice", "one", "app"),
        person("twice", "two", "app"),
    ]
    .concat()
}

impl Slapd {
    fn start() -> Self {
        let who = RunAs::unprivileged().unwrap();
        let dir = TempDir::new(who).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let own = |path: &str| {
            if let Some(who) = who {
                chown(path, Some(who.uid), Some(who.gid)).unwrap();
            }
        };
        fs::create_dir(at("db")).unwrap();
        own(&at("db"));
        for name in ["server.crt", "server.key"] {
            fs::copy(certificates().join(name), at(name)).unwrap();
            own(&at(name));
        }
        let schema = here("etc/ldap/schema");
        let includes = ["core", "cosine", "inetorgperson"]
            .map(|name| format!("include {}/{name}.schema\n", schema.display()))
            .concat();
        let conf = format!(
            "{includes}modulepath {modules}\nmoduleload back_mdb\npidfile {pid}\n\
             TLSCertificateFile {crt}\nTLSCertificateKeyFile {key}\nTLSCACertificateFile {ca}\n\
             database mdb\nsuffix \"{BASE}\"\nrootdn \"cn=boss,{BASE}\"\nrootpw bosss\ndirectory {db}\n\
             access to attrs=userPassword by anonymous auth by * none\n\
             access to dn.subtree=\"ou=people,{BASE}\" by * read\naccess to * by * search\n",
            modules = here("usr/lib/ldap").display(),
            pid = at("pid"),
            crt = at("server.crt"),
            key = at("server.key"),
            ca = at("server.crt"),
            db = at("db"),
        );
        fs::write(at("slapd.conf"), conf).unwrap();
        fs::write(at("people.ldif"), people()).unwrap();
        let slapd = here("usr/sbin/slapd").display().to_string();
        let variables = variables();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let run = |arguments: &[&str]| {
            Guarded::spawn_with(who, arguments, &variables, Path::new(&at("log")), "TERM").unwrap()
        };
        fs::write(at("log"), "").unwrap();
        own(&at("log"));
        let mut added = run(&[&slapd, "-Tadd", "-f", &at("slapd.conf"), "-l", &at("people.ldif")]);
        let status = added.wait(PATIENCE).expect("slapadd ends");
        assert!(status.success(), "{}", fs::read_to_string(at("log")).unwrap());
        let (port, tls_port) = (free_port().unwrap(), free_port().unwrap());
        let listen = format!("ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}");
        let process = run(&[&slapd, "-d", "0", "-f", &at("slapd.conf"), "-h", &listen]);
        let open =
            || [port, tls_port].iter().all(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok());
        let up = wait_until(PATIENCE, || open().then_some(()));
        assert!(up.is_some(), "{}", fs::read_to_string(at("log")).unwrap());
        Self { port, tls_port, _process: process, _dir: dir }
    }
}

/// A pooler that asks directories.
struct Asking {
    stage: Stage,
    database: Database,
}

impl Asking {
    fn new() -> Self {
        let stage = Stage::new();
        stage.file("ca.crt", &fs::read_to_string(certificates().join("ca.crt")).unwrap());
        stage.file("userlist.txt", &format!("\"admin\" \"{}\"\n", password_of("admin")));
        Self { stage, database: Database::new() }
    }

    fn write(&self, lines: &str) {
        self.stage.file(
            "pgbouncer.ini",
            &format!(
                "[databases]\n{} = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = @PORT@\n\
                 unix_socket_dir =\nadmin_users = admin, app\nauth_file = @DIR@/userlist.txt\n{lines}\n",
                self.database.name, self.database.port
            ),
        );
    }

    /// Lets other options count.
    fn ask(&self, process: &Guarded, options: &str) {
        let before = self.stage.read("stderr").matches("configuration reloaded").count();
        self.write(&format!("auth_type = ldap\nauth_ldap_options = {options}"));
        process.signal("HUP").unwrap();
        let loaded = || self.stage.read("stderr").matches("configuration reloaded").count() > before;
        assert!(wait_until(PATIENCE, || loaded().then_some(())).is_some(), "{}", self.stage.read("stderr"));
    }

    fn login(&self, user: &str, password: &str) -> Result<Raw, (String, String)> {
        let mut raw = Raw::open(self.stage.port);
        match raw.try_login(user, &self.database.name, password, &[]) {
            Ok(()) => Ok(raw),
            Err(error) => Err((error.field(b'C'), error.field(b'M'))),
        }
    }

    /// `app` and nobody else gets in, and works.
    fn assert_serves(&self, options: &str) {
        let refused = |user: &str| {
            Some(("28000".to_owned(), format!("LDAP authentication failed for user \"{user}\"")))
        };
        match self.login("app", &password_of("app")) {
            Ok(mut client) => assert_eq!(client.sql("SELECT current_user"), ["app"]),
            Err(error) => panic!("{options}: {error:?}\n{}", self.stage.read("stderr")),
        }
        let secret = password_of("app");
        for (user, password) in [
            ("app", "wrong"),
            ("nobody", secret.as_str()),
            // What would be somebody, if names could say more than names.
            ("ap*", &secret),
            ("*", &secret),
            ("app)(uid=*", &secret),
            ("*)(uid=app", &secret),
            ("app,ou=people", &secret),
            ("app\\", &secret),
            ("app,ou=people,dc=example,dc=net", &secret),
            ("\u{1}", &secret),
        ] {
            assert_eq!(self.login(user, password).err(), refused(user), "{options} {user}");
        }
        // Not an anonymous bind, which a directory lets everybody do.
        let empty = self.login("app", "").err().unwrap();
        assert_eq!(empty.1, "empty password returned by client", "{options}");
    }
}

#[test]
fn directory_is_asked_in_all_its_ways() {
    let (slapd, asking) = (Slapd::start(), Asking::new());
    let plain = format!("ldapserver=localhost ldapport={}", slapd.port);
    let tls = format!("ldapserver=localhost ldapport={}", slapd.tls_port);
    let search = "ldapbasedn=\"ou=people,dc=example,dc=net\"";
    let closed = free_port().unwrap();
    let ways = [
        format!("{plain} ldapprefix=\"cn=\" ldapsuffix=\",ou=people,{BASE}\""),
        format!("{plain} {search}"),
        format!("{plain} {search} ldapsearchattribute=cn"),
        format!(
            "{plain} ldapbasedn=\"{BASE}\" ldapbinddn=\"cn=boss,{BASE}\" ldapbindpasswd=bosss ldapsearchfilter=\"(&(objectClass=inetOrgPerson)(mail=$username@example.net)(cn=$username))\""
        ),
        format!(
            "ldapurl=\"ldap://localhost:{}/{BASE}?cn?sub\" ldapbinddn=\"cn=boss,{BASE}\" ldapbindpasswd=bosss",
            slapd.port
        ),
        format!("{plain} ldaptls=1 {search}"),
        format!("{tls} ldapscheme=ldaps {search}"),
        format!("ldapurl=\"ldaps://localhost:{}/ou=people,{BASE}?uid?one\"", slapd.tls_port),
        // The first one is not there.
        format!("ldapserver=\"127.0.0.9 localhost\" ldapport={} {search}", slapd.port),
    ];
    asking.write(&format!("auth_type = ldap\nauth_ldap_options = {}", ways[0]));
    let ca = asking.stage.path("ca.crt");
    let process = asking.stage.start(&[("LDAPTLS_CACERT", ca.to_str().unwrap())]).process;
    for options in &ways {
        asking.ask(&process, options);
        asking.assert_serves(options);
    }
    // The console, too.
    let mut console = Raw::login(asking.stage.port, "app", "pgbouncer", &password_of("app"));
    assert!(console.sql("SHOW VERSION")[0].starts_with("PgBouncer "));

    for (options, why) in [
        // The name would end within the suffix: not where somebody chose.
        (
            format!("{plain} ldapprefix=\"cn=\" ldapsuffix=\",{BASE}\""),
            "the server refused name and password: invalid credentials (49)",
        ),
        (
            format!("{plain} ldapbasedn=\"{BASE}\" ldapbinddn=\"cn=boss,{BASE}\" ldapbindpasswd=bosss"),
            "the search found more than one entry",
        ),
        (
            format!("{plain} {search} ldapbinddn=\"cn=boss,{BASE}\" ldapbindpasswd=wrong"),
            "could not bind as ldapbinddn: invalid credentials (49)",
        ),
        (format!("{plain} ldapbasedn=\"dc=elsewhere\""), "the search failed: no such object (32)"),
        (format!("ldapserver=localhost ldapport={closed} {search}"), "no server can be reached: localhost:"),
        // Its certificate is for localhost and 127.0.0.1.
        (
            format!("ldapserver=127.0.0.2 ldapport={} ldapscheme=ldaps {search}", slapd.tls_port),
            "no server can be reached: 127.0.0.2:",
        ),
    ] {
        asking.ask(&process, &options);
        let error = asking.login("app", &password_of("app")).err();
        assert_eq!(error.unwrap().1, "LDAP authentication failed for user \"app\"", "{options}");
        let log = asking.stage.read("stderr");
        assert!(
            log.contains(&format!("LDAP authentication failed for user app: {why}")),
            "{options}: {why}\n{log}"
        );
        assert!(!log.contains(&password_of("app")) && !log.contains("bosss"), "{log}");
    }
}

#[test]
fn lines_of_the_hba_file_ask_their_own_directories() {
    let (slapd, asking) = (Slapd::start(), Asking::new());
    asking.stage.file(
        "hba",
        &format!(
            "host all app 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport={0} ldapprefix=\"cn=\" ldapsuffix=\",ou=people,{BASE}\"\n\
             host all other all ldap ldapurl=\"ldap://127.0.0.1:{0}/ou=people,{BASE}?uid?sub\" # by the name\n\
             host all all all md5\n",
            slapd.port
        ),
    );
    asking.write("auth_type = hba\nauth_hba_file = @DIR@/hba");
    let running = asking.stage.start(&[]);
    for user in ["app", "other"] {
        let mut client = asking.login(user, &password_of(user)).unwrap();
        assert_eq!(client.sql("SELECT current_user"), [user]);
        assert_eq!(asking.login(user, "wrong").err().unwrap().0, "28000");
    }
    Raw::login(asking.stage.port, "admin", "pgbouncer", &password_of("admin"));
    running.stop();
}

/// One that is asked and says nothing: others are served meanwhile, and the client is told in the end.
#[test]
fn silent_directory_holds_nobody_else_up() {
    let (silent, asking) = (TcpListener::bind("127.0.0.1:0").unwrap(), Asking::new());
    asking.stage.file("userlist.txt", &format!("\"other\" \"{}\"\n", password_of("other")));
    let port = silent.local_addr().unwrap().port();
    asking.stage.file("hba", &format!("host all app all ldap ldapserver=127.0.0.1 ldapport={port} ldapprefix=\"cn=\"\nhost all all all md5\n"));
    asking.write("auth_type = hba\nauth_hba_file = @DIR@/hba\nclient_login_timeout = 3");
    let running = asking.stage.start(&[]);
    let at = asking.stage.port;
    let database = asking.database.name.clone();
    let stuck: Vec<_> = (0..20)
        .map(|_| {
            let database = database.clone();
            thread::spawn(move || {
                Raw::open(at).try_login("app", &database, &password_of("app"), &[]).unwrap_err().field(b'M')
            })
        })
        .collect();
    let asked = silent.accept().unwrap();
    let mut other = asking.login("other", &password_of("other")).unwrap();
    assert_eq!(other.sql("SELECT 1"), ["1"]);
    assert!(!stuck.iter().any(thread::JoinHandle::is_finished), "somebody has been answered");
    for login in stuck {
        assert_eq!(login.join().unwrap(), "client_login_timeout");
    }
    drop((asked, other));
    running.stop();
}

#[test]
fn options_that_cannot_be_read_end_the_start() {
    let asking = Asking::new();
    for (options, why) in [
        ("", "ldapserver is missing"),
        ("ldapserver=x ldapbasedn=y ldapsearchfilter=(uid=", "ldapsearchfilter is not of RFC 4515"),
        ("ldapserver=x ldapbindpasswd=hidden", "ldapbasedn, ldapprefix or ldapsuffix is missing"),
    ] {
        asking.write(&format!("auth_type = ldap\nauth_ldap_options = {options}"));
        let program = asking.stage.path("pgbouncer");
        let output = asking.stage.run(program.to_str().unwrap(), &["pgbouncer.ini"]);
        assert_eq!(output.status.code(), Some(1), "{options}");
        assert!(err(&output).contains(&format!("auth_ldap_options: {why}")), "{options}: {}", err(&output));
        assert!(!err(&output).contains("hidden"), "{}", err(&output));
    }
}
