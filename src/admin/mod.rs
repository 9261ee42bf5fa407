//! The admin console: databases `pooler` and `pgbouncer`, with PgBouncer's commands, over both query protocols.
//!
//! One task per console client; the worker that owns its socket hands over whole messages.

mod act;
mod command;
pub(crate) mod commands;
mod extended;
pub(crate) mod metrics;
mod reload;
mod result;
mod show;
pub(crate) mod status;

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use command::Command;
use commands::{Commands, Shutdown};
use extended::{Execution, Extended};
use result::{Columns, Row};
use tokio::sync::mpsc::{Receiver, error::TryRecvError};

use crate::{
    client::{ConsoleRight, LoggedIn},
    protocol::{
        BackendKeyData, backend,
        encode::{self, Severity},
        frame::HEADER,
        frontend,
    },
    worker::message::{ClientRef, ConsoleInput, ConsoleLink, Message},
};

/// What SHOW HELP tells.
const HELP: &str = "\n\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|LISTS|STATE|VERSION\n\t\
    SHOW SOCKETS|ACTIVE_SOCKETS|MEM|PEERS|PEER_POOLS|DNS_HOSTS|DNS_ZONES\n\t\
    SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS\n\t\
    SHOW LISTENERS|NODES|QUERIES|ROUTES|WHY '<sql>'
	\
    SET key = arg
	RELOAD
	PAUSE [<db>]
	SUSPEND
	RESUME [<db>]
	DISABLE <db>
	ENABLE <db>
	\
    RECONNECT [<db>]\n\tKILL [<db>]\n\tKILL_CLIENT <client_id>\n\tWAIT_CLOSE [<db>]\n\t\
    SHUTDOWN\n\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS";
/// What drivers set at every server; here it means nothing.
const IGNORED: [&str; 10] = [
    "application_name",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "extra_float_digits",
    "intervalstyle",
    "search_path",
    "standard_conforming_strings",
    "timezone",
];
/// Answers are sent together up to this many bytes.
const SEND_AT: usize = 64 << 10;

struct Console {
    commands: Arc<Commands>,
    right: ConsoleRight,
    user: String,
    client: ClientRef,
    input: Receiver<ConsoleInput>,
    /// A cancel request has come.
    cancelled: Arc<AtomicBool>,
    extended: Extended,
    /// Between BEGIN and COMMIT, which mean nothing but to the driver.
    in_transaction: bool,
    /// Messages have been taken since something was sent: the worker waits to hear of it.
    taken: bool,
    /// To be done once the answer has been sent.
    shutdown: Option<Shutdown>,
    out: Vec<u8>,
}

/// A failed command.
#[derive(Debug)]
struct Refused {
    sqlstate: &'static str,
    message: String,
    detail: Option<String>,
}

impl Refused {
    fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), detail: None }
    }

    fn invalid(sql: &str) -> Self {
        Self::new("42601", format!("invalid command '{sql}', use SHOW HELP;"))
    }
}

/// What a command gives.
enum Answer {
    Rows(Columns, Vec<Row>),
    Tag(String),
    Notice { message: &'static str, detail: Option<&'static str>, tag: &'static str },
    Empty,
}

/// Starts a console task for a client, which greets it as soon as it is told its number.
pub(crate) fn open(commands: Arc<Commands>, login: &LoggedIn) -> ConsoleLink {
    let (link, mut input) = ConsoleLink::new();
    let cancelled = Arc::clone(&link.cancelled);
    let right = login.console.unwrap_or(ConsoleRight::Stats);
    let (user, unsent) = (login.user.clone(), login.unsent.clone());
    tokio::spawn(async move {
        let Some(ConsoleInput::Connected { client, key }) = input.recv().await else { return };
        let mut console = Console {
            commands,
            right,
            user,
            client,
            input,
            cancelled,
            extended: Extended::default(),
            in_transaction: false,
            taken: false,
            shutdown: None,
            out: unsent,
        };
        console.greet(&key);
        console.run().await;
    });
    link
}

impl Console {
    async fn run(mut self) {
        loop {
            let next = match self.input.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.send(false);
                    self.input.recv().await
                }
                next => next.ok(),
            };
            let Some(next) = next else { return };
            self.taken = true;
            let ConsoleInput::Frame(tag, body) = next else { continue };
            if self.frame(tag, &body).await.is_break() {
                return self.send(true);
            }
            if self.out.len() >= SEND_AT || self.shutdown.is_some() {
                self.send(false);
            }
            if let Some(how) = self.shutdown.take() {
                self.commands.shut_down(how);
            }
        }
    }

    /// Sends the answers so far; with none, the worker is told at least that messages have been taken.
    fn send(&mut self, close: bool) {
        if self.out.is_empty() && !self.taken && !close {
            return;
        }
        self.taken = false;
        let (client, bytes) = (self.client, std::mem::take(&mut self.out));
        if let Some(worker) = self.commands.process.workers.get(client.worker) {
            worker.send(Message::ConsoleOutput { client, bytes, close });
        }
    }

    fn greet(&mut self, key: &BackendKeyData) {
        self.commands.count_console(|totals| totals.logins += 1);
        let out = &mut self.out;
        encode::authentication_ok(out);
        let parameters = [
            // Exporters read PgBouncer's version here.
            ("server_version", "1.25.2/bouncer"),
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "GMT"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "on"),
        ];
        for (name, value) in parameters {
            encode::parameter_status(out, name, value);
        }
        encode::backend_key_data(out, key);
        self.ready();
    }

    fn ready(&mut self) {
        encode::ready_for_query(&mut self.out, if self.in_transaction { b'T' } else { b'I' });
    }

    /// One message. Breaks when the connection is to end.
    async fn frame(&mut self, tag: u8, body: &[u8]) -> ControlFlow<()> {
        let size = u64::try_from(body.len() + HEADER).unwrap_or(0);
        self.commands.count_console(|totals| totals.received += size);
        match tag {
            frontend::QUERY => {
                self.extended.simple_query();
                let done = self.query(body).await;
                self.or_tell(done);
                self.extended.sync(self.in_transaction);
                self.ready();
            }
            frontend::SYNC => {
                self.extended.sync(self.in_transaction);
                self.ready();
            }
            frontend::FLUSH => self.send(false),
            // Late messages of a COPY that has failed: PostgreSQL ignores them too.
            frontend::COPY_DATA | frontend::COPY_DONE | frontend::COPY_FAIL => {}
            frontend::FUNCTION_CALL => {
                let refused = Refused::new("0A000", "the console has no functions");
                self.or_tell(Err(refused));
                self.ready();
            }
            frontend::PARSE | frontend::BIND | frontend::DESCRIBE | frontend::CLOSE | frontend::EXECUTE => {
                if !self.extended.failed {
                    let done = self.extended_message(tag, body).await;
                    self.extended.failed = done.is_err();
                    self.or_tell(done);
                }
            }
            _ => {
                let text = format!("invalid frontend message type {tag}");
                encode::error(&mut self.out, Severity::Fatal, "08P01", &text, None, None);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn or_tell(&mut self, done: Result<(), Refused>) {
        if let Err(refused) = done {
            let detail = refused.detail.as_deref();
            encode::error(&mut self.out, Severity::Error, refused.sqlstate, &refused.message, detail, None);
        }
    }

    async fn query(&mut self, body: &[u8]) -> Result<(), Refused> {
        let sql = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned();
        match self.execute(understand(&sql)?).await? {
            Answer::Rows(columns, rows) => {
                result::describe(&mut self.out, columns, &[]);
                rows.iter().for_each(|row| result::row(&mut self.out, columns, &[], row));
                result::complete(&mut self.out, "SHOW");
            }
            answer => self.tell(answer),
        }
        Ok(())
    }

    async fn extended_message(&mut self, tag: u8, body: &[u8]) -> Result<(), Refused> {
        match tag {
            frontend::PARSE => {
                let (name, sql) = extended::read_parse(body)
                    .ok_or_else(|| Refused::new("08P01", "invalid Parse message"))?;
                self.extended.parse(name, understand(sql)?, &mut self.out)
            }
            frontend::BIND => self.extended.bind(body, &mut self.out),
            frontend::DESCRIBE => self.extended.describe(body, &mut self.out),
            frontend::CLOSE => self.extended.close(body, &mut self.out),
            _ => {
                let Execution::Run { portal, command, most } = self.extended.execute(body, &mut self.out)?
                else {
                    return Ok(());
                };
                let rows = match self.execute(command).await? {
                    Answer::Rows(columns, rows) => Some((columns, rows)),
                    answer => {
                        self.tell(answer);
                        None
                    }
                };
                self.extended.fetched(&portal, rows, most, &mut self.out)
            }
        }
    }

    /// Writes an answer without rows.
    fn tell(&mut self, answer: Answer) {
        match answer {
            Answer::Rows(..) => {}
            Answer::Tag(tag) => result::complete(&mut self.out, &tag),
            Answer::Notice { message, detail, tag } => {
                encode::error(&mut self.out, Severity::Notice, "00000", message, detail, None);
                result::complete(&mut self.out, tag);
            }
            Answer::Empty => encode::message(&mut self.out, backend::EMPTY_QUERY_RESPONSE, |_| {}),
        }
    }

    async fn execute(&mut self, command: Command) -> Result<Answer, Refused> {
        let started = Instant::now();
        let answer = self.answer(command).await;
        let time = u64::try_from(started.elapsed().as_micros()).unwrap_or(0);
        self.commands.count_console(|totals| {
            totals.queries += 1;
            totals.transactions += 1;
            totals.query_time += time;
            totals.transaction_time += time;
        });
        answer
    }

    async fn answer(&mut self, command: Command) -> Result<Answer, Refused> {
        Ok(match command {
            Command::Empty => Answer::Empty,
            Command::Transaction(tag) => {
                self.in_transaction = ["BEGIN", "START TRANSACTION"].contains(&tag);
                Answer::Tag(tag.to_owned())
            }
            Command::Show(what) => match show::columns(&what) {
                None => return Err(Refused::invalid(&format!("SHOW {what}"))),
                Some([]) => Answer::Notice { message: "Console usage", detail: Some(HELP), tag: "SHOW" },
                Some(columns) => Answer::Rows(columns, show::rows(&self.commands, &what).await),
            },
            Command::Why(sql) => Answer::Rows(show::WHY, show::why(&self.commands, &sql)),
            Command::Set { name, .. } if is_ignored(&name) => {
                Answer::Notice { message: "SET ignored", detail: None, tag: "SET" }
            }
            Command::Set { name, value } => {
                self.check_right()?;
                self.set(&name, &value).await?;
                Answer::Tag(format!("SET {name}={value}"))
            }
            Command::Other { verb, argument } => {
                self.check_right()?;
                let arguments = argument.as_deref().map(|a| format!(" '{a}'")).unwrap_or_default();
                tracing::info!(user = self.user, "{verb}{arguments} command issued");
                self.act(&verb, argument.as_deref()).await?;
                Answer::Tag(verb)
            }
        })
    }

    fn check_right(&self) -> Result<(), Refused> {
        match self.right {
            ConsoleRight::Admin => Ok(()),
            ConsoleRight::Stats => Err(Refused::new("42501", "admin access needed")),
        }
    }
}

fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|ignored| ignored.eq_ignore_ascii_case(name))
}

/// What a text means, if it is a command at all.
fn understand(sql: &str) -> Result<Command, Refused> {
    let command = command::parse(sql).filter(|command| match command {
        Command::Show(what) => show::columns(what).is_some(),
        Command::Other { verb, argument } => act::is_known(verb, argument.as_deref()),
        _ => true,
    });
    command.ok_or_else(|| Refused::invalid(sql))
}
