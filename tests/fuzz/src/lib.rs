//! What must hold for any bytes at all. Run by `cargo fuzz` with coverage (see Cargo.toml) and by `tests/robustness.rs`
//! with random input on stable Rust.

use std::{num::NonZeroUsize, path::Path, sync::Arc};

use pooler::{
    auth::{ScramClient, ScramSecret, ScramSecretSource, ScramServer, Stored},
    client::startup::Request,
    config::Config,
    protocol::{
        backend::error_field,
        frame::HEADER,
        startup::{StartupPacket, packet_len, parse_options},
    },
    session::{
        downstream::Downstream,
        outgoing::Outgoing,
        params::{Labels, Params},
        queries::{Queries, Took},
        state::{ClientSession, ServerSession, Shared},
        statements::Registry,
        upstream::{STREAM_OVER, Stop, Upstream},
    },
};

/// Longest Parse.
const MAX_PACKET: usize = 1 << 10;

/// Both ends of a relay, without sockets.
struct Relay {
    client: ClientSession,
    server: ServerSession,
    shared: Shared,
    max_statements: Option<NonZeroUsize>,
    queries: Queries,
    /// Read and not used yet.
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    /// Everything that was written.
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// The client's next message waits for replies.
    held: bool,
    /// A message has waited (with a Flush in its place), or settings may have been put back by the pooler: not
    /// everything that is written came from the other end.
    added: bool,
    /// How it ended.
    over: Option<String>,
}

impl Relay {
    fn new(max_statements: Option<NonZeroUsize>) -> Self {
        let shared = Shared { registry: Registry::new(1), labels: Labels::default() };
        let label = shared.labels.intern(Params::default());
        let mut queries = Queries::default();
        queries.keep(2);
        Self {
            client: ClientSession::new(1, Arc::clone(&label)),
            server: ServerSession::new(label, &[]),
            shared,
            max_statements,
            queries,
            from_client: Vec::new(),
            from_server: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            held: false,
            added: false,
            over: None,
        }
    }

    fn client_sends(&mut self, bytes: &[u8]) {
        if self.over.is_some() {
            return;
        }
        self.from_client.extend_from_slice(bytes);
        while !self.held && self.over.is_none() && self.client_goes_on() {}
    }

    /// What there is of the client's bytes passes, unless it waits for replies. True if there may be more to pass.
    fn client_goes_on(&mut self) -> bool {
        let mut staging = Vec::new();
        let mut out = Outgoing::new(&self.from_client, &mut staging);
        let mut upstream = Upstream {
            client: &mut self.client,
            server: &mut self.server,
            shared: &self.shared,
            max_statements: self.max_statements,
            max_packet_size: MAX_PACKET,
            now: 0,
            counts: Default::default(),
            flush: false,
            hidden: None,
            listens: true,
            heard: true,
            lacks: None,
            simple: true,
            refuses: false,
            queries: Some(&mut self.queries),
            pool: 0,
        };
        let (used, stop) = upstream.translate(&self.from_client, &mut out);
        let lacks = upstream.lacks.take();
        self.to_server.extend_from_slice(out.finish());
        self.from_client.drain(..used);
        self.held = stop == Stop::Held;
        self.added |= self.held || self.server.resets.are_expected();
        match stop {
            // A length that is only claimed makes nobody keep more than this.
            Stop::NeedMore => assert!(self.from_client.len() <= STREAM_OVER.max(MAX_PACKET + HEADER)),
            Stop::Held => {}
            Stop::Full => return true,
            Stop::Channels => {
                let channels = lacks.expect("something is lacking");
                self.client.channels.get_or_insert_default().kept.extend(channels.listens().map(Into::into));
                return true;
            }
            Stop::Terminate => self.over = Some("terminated".to_owned()),
            Stop::Broken(message) => self.over = Some(message),
        }
        false
    }

    fn server_sends(&mut self, bytes: &[u8]) {
        if self.over.is_some() {
            return;
        }
        self.from_server.extend_from_slice(bytes);
        let mut staging = Vec::new();
        let mut out = Outgoing::new(&self.from_server, &mut staging);
        let mut downstream = Downstream::new(&mut self.client, &mut self.server, &self.shared);
        let result = downstream.translate(&self.from_server, &mut out);
        self.to_server.extend_from_slice(&downstream.request);
        self.held = false;
        self.to_client.extend_from_slice(out.finish());
        self.added |= self.server.resets.are_expected();
        self.server.done.drain(..).for_each(|done| self.queries.count(&done, Took::default()));
        match result {
            Ok(used) => drop(self.from_server.drain(..used)),
            Err(broken) => self.over = Some(broken.0.to_owned()),
        }
    }

    fn outcome(self) -> (Vec<u8>, Vec<u8>, Option<String>) {
        (self.to_server, self.to_client, self.over)
    }
}

/// Reads the input as turns of the two ends: a byte of direction and length, then so many bytes.
fn turns(mut data: &[u8], mut turn: impl FnMut(bool, &[u8])) {
    while let Some((&control, rest)) = data.split_first() {
        let n = usize::from(control & 0x7f).min(rest.len());
        let (bytes, rest) = rest.split_at(n);
        turn(control & 0x80 == 0, bytes);
        data = rest;
    }
}

/// Any bytes from either end: no panic, and nothing kept without bound.
pub fn relay(data: &[u8]) {
    let mut tracked = Relay::new(NonZeroUsize::new(3));
    let mut plain = Relay::new(None);
    let (mut sent, mut replied) = (Vec::new(), Vec::new());
    turns(data, |by_client, bytes| {
        if by_client {
            tracked.client_sends(bytes);
            plain.client_sends(bytes);
            sent.extend_from_slice(bytes);
        } else {
            tracked.server_sends(bytes);
            tracked.client_sends(&[]);
            plain.server_sends(bytes);
            plain.client_sends(&[]);
            replied.extend_from_slice(bytes);
        }
    });
    if !plain.added {
        assert!(sent.starts_with(&plain.to_server), "what the client did not send reached the server");
        assert!(replied.starts_with(&plain.to_client), "what the server did not send reached the client");
    }
}

/// However the bytes are cut, the same comes out: of what the client sends, then of what the server replies.
pub fn chunks(data: &[u8]) {
    let (mut sent, mut replied) = (Vec::new(), Vec::new());
    turns(
        data,
        |by_client, bytes| {
            if by_client { sent.extend_from_slice(bytes) } else { replied.extend_from_slice(bytes) }
        },
    );
    for max_statements in [None, NonZeroUsize::new(3)] {
        let run = |size: usize| {
            let mut relay = Relay::new(max_statements);
            sent.chunks(size).for_each(|chunk| relay.client_sends(chunk));
            replied.chunks(size).for_each(|chunk| relay.server_sends(chunk));
            relay.client_sends(&[]);
            relay.outcome()
        };
        let whole = run(STREAM_OVER);
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(run(size), whole, "in pieces of {size}");
        }
    }
}

/// Any first packet.
pub fn startup(data: &[u8]) {
    if let Ok(Some(len)) = packet_len(data) {
        assert!(len <= 10_004, "a length that nobody should reserve: {len}");
    }
    if let Ok(StartupPacket::Startup(version, parameters)) = StartupPacket::parse(data) {
        let kept: usize = parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(kept <= data.len());
        if let Ok(request) = Request::read(version, parameters, &["ignored".to_owned()]) {
            assert!(!request.user.is_empty() && !request.database.is_empty());
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse_options(text);
    }
    let _ = error_field(data, b'M');
}

/// Any messages of the other side in a SCRAM exchange: nobody gets in without the password.
pub fn scram(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    let secret = "SCRAM-SHA-256$1:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                  wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let secret = Arc::new(ScramSecret::parse(secret).expect("a secret"));
    for binding in [None, Some(Arc::from(&b"hash of a certificate"[..]))] {
        let mut server = ScramServer::new(Arc::clone(&secret), false, binding.clone());
        if server.on_initial(first).is_ok() {
            assert!(server.on_final(second).is_err(), "a client proved what it does not know");
        }
        let offered = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
        let source = ScramSecretSource::Password("pencil");
        if let Ok((mut client, _, _)) = ScramClient::new(source, binding.as_deref(), &offered)
            && client.on_continue(first).is_ok()
        {
            assert!(client.on_final(second).is_err(), "a server proved what it does not know");
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Stored::parse(text);
    }
}

/// Any configuration: it loads, or says what is wrong.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let nothing = |_: &str| None;
    // Not what other files say.
    if !text.contains("%include")
        && let Err(problems) = Config::from_ini_text(Path::new("/nowhere/pgbouncer.ini"), text)
    {
        assert!(!problems.to_string().is_empty());
    }
    match Config::from_text(Path::new("/nowhere/pooler.toml"), text, &nothing) {
        Ok(loaded) => {
            for database in loaded.config.databases.values() {
                assert!(
                    loaded.config.resolve_database(&database.name).is_none_or(|found| !found.host.is_empty())
                );
            }
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}
