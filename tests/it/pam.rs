//! Users that the system knows: the real libpam with modules of Debian's, and rules of the test's own.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, thread};

use pooler::demo::process::{TempDir, wait_until};

use crate::support::{
    database::{Database, password_of},
    debian::here,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
};

/// Passwords for pam_pwdfile, and scripts for pam_exec.
struct Rules {
    dir: TempDir,
}

impl Rules {
    fn new() -> Self {
        let dir = TempDir::new(None).unwrap();
        let line = |user: &str| {
            let mut openssl = Command::new("openssl");
            let output = openssl.args(["passwd", "-6", &password_of(user)]).output().expect("openssl");
            format!("{user}:{}", String::from_utf8(output.stdout).unwrap())
        };
        fs::write(dir.path().join("passwords"), line("app") + &line("other")).unwrap();
        Self { dir }
    }

    fn passwords(&self) -> String {
        let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
        let module = here(&format!("lib/{multiarch}/security/pam_pwdfile.so"));
        format!(
            "auth required {} pwdfile={}\n",
            module.display(),
            self.dir.path().join("passwords").display()
        )
    }

    /// A line that runs this script.
    fn script(&self, kind: &str, name: &str, script: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        format!("{kind} required pam_exec.so quiet {}\n", path.display())
    }
}

fn login(pooler: &Pooler, user: &str, password: &str) -> Result<Raw, (String, String)> {
    let mut raw = Raw::open(pooler.port);
    let result = raw.try_login(user, &pooler.database, password, &[]);
    result.map(|()| raw).map_err(|error| (error.field(b'C'), error.field(b'M')))
}

fn refused(user: &str) -> Option<(String, String)> {
    Some(("28000".to_owned(), format!("PAM authentication failed for user \"{user}\"")))
}

#[test]
fn system_says_who_gets_in_and_whose_account_is_open() {
    let (database, rules) = (Database::new(), Rules::new());
    let account =
        rules.script("account", "open", "test \"$PAM_USER\" != other && test \"$PAM_RHOST\" = 127.0.0.1");
    let pooler = Setup::new(&database)
        .own_users()
        .setting("auth_type = \"pam\"\nstats_users = [\"app\"]")
        .pam_service("pooler", &(rules.passwords() + &account))
        .start();
    let mut client = login(&pooler, "app", &password_of("app")).unwrap();
    assert_eq!(client.sql("SELECT current_user"), ["app"]);
    assert_eq!(login(&pooler, "app", "wrong").err(), refused("app"));
    assert_eq!(login(&pooler, "app", &"x".repeat(600)).err(), refused("app"));
    assert_eq!(login(&pooler, "nobody", &password_of("app")).err(), refused("nobody"));
    assert_eq!(login(&pooler, "app", "").err().unwrap().1, "empty password returned by client");
    // The password is right, and the account is closed.
    assert_eq!(login(&pooler, "other", &password_of("other")).err(), refused("other"));
    // The console, too: by PAM, whoever is in the list.
    let mut console = Raw::login(pooler.port, "app", "pooler", &password_of("app"));
    assert!(!console.sql("SHOW VERSION").is_empty());
    let log = pooler.log();
    assert!(log.contains("PAM authentication failed for user app: Authentication failure"), "{log}");
    assert!(!log.contains(&password_of("app")), "{log}");
}

/// A module that takes its time holds up only those who wait for it.
#[test]
fn slow_module_holds_nobody_else_up() {
    let (database, rules) = (Database::new(), Rules::new());
    let go = rules.dir.path().join("go");
    let waits =
        format!("for i in $(seq 300); do test -e {} && exit 0; sleep 0.1; done; exit 1", go.display());
    let slow = rules.script("auth", "slow", &waits) + &rules.passwords() + "account required pam_permit.so\n";
    let hba = rules.dir.path().join("hba");
    fs::write(&hba, "host all other all pam pamservice=slow\nhost all app all pam\nhost all all all trust\n")
        .unwrap();
    let pooler = Setup::new(&database)
        .setting(&format!("auth_type = \"hba\"\nauth_hba_file = \"{}\"", hba.display()))
        .pam_service("slow", &slow)
        .pam_service("pooler", &(rules.passwords() + "account required pam_permit.so\n"))
        .start();
    let (port, name) = (pooler.port, database.name.clone());
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let name = name.clone();
            thread::spawn(move || {
                Raw::login(port, "other", &name, &password_of("other")).sql("SELECT current_user")
            })
        })
        .collect();
    let asked = || pooler.log().matches("user=other").count() >= 4;
    assert!(wait_until(PATIENCE, || asked().then_some(())).is_some(), "{}", pooler.log());
    assert_eq!(login(&pooler, "app", &password_of("app")).unwrap().sql("SELECT current_user"), ["app"]);
    assert!(!waiting.iter().any(thread::JoinHandle::is_finished));
    fs::write(go, "").unwrap();
    for client in waiting {
        assert_eq!(client.join().unwrap(), ["other"]);
    }
}

#[test]
fn service_without_rules_lets_nobody_in() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .setting("auth_type = \"pam\"\nauth_pam_service = \"missing\"")
        .pam_service("other", "auth required pam_deny.so\naccount required pam_deny.so\n")
        .start();
    assert_eq!(login(&pooler, "app", &password_of("app")).err(), refused("app"));
}
