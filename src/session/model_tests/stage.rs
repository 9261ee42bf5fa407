//! Joins clients, the code under test and model servers as a worker does, one move at a time.

use std::num::NonZeroUsize;

use super::server::Server;
use crate::{
    protocol::{
        encode,
        frame::{HEADER, Header, split_cstr},
        frontend as fe,
    },
    session::{
        downstream::{Downstream, write_synthetic},
        outgoing::Outgoing,
        params::{Labels, Params},
        state::{ClientSession, Counts, ServerSession, Shared},
        statements::Registry,
        upstream::{STREAM_OVER, Stop, Upstream},
    },
};

/// What a server has if nobody asks for anything.
const DEFAULTS: [(&str, &str); 1] = [("TimeZone", "server")];

/// What the clients ask for at startup.
const STARTUP: [&[(&str, &str)]; 3] = [
    &[],
    &[("TimeZone", "startup"), ("unreported", "mine")],
    &[("TimeZone", "server"), ("unreported", "other")],
];

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    /// A client's bytes go up (else a server's come down).
    pub(super) up: bool,
    /// Which one.
    pub(super) who: usize,
    /// At most so many.
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Client {
    session: ClientSession,
    unsent: Vec<u8>,
    pending: Vec<u8>,
    server: Option<usize>,
    received: Vec<u8>,
}

#[derive(Debug)]
struct Link {
    session: ServerSession,
    model: Server,
    pending: Vec<u8>,
    client: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Stage {
    clients: Vec<Client>,
    servers: Vec<Link>,
    shared: Shared,
    cache: usize,
    /// Microseconds since the beginning.
    now: u64,
}

/// How long a move takes: shared statements stay recent for some moves, and are prepared anew after more.
const STEP: u64 = 150_000;

/// What a client receives that has a server for itself.
pub(super) fn play_alone(index: usize, script: &[u8]) -> Vec<String> {
    let mut server = Server::new(&[&DEFAULTS[..], STARTUP[index]].concat());
    server.feed(script);
    frames(&server.output)
}

impl Stage {
    pub(super) fn new(scripts: &[Vec<u8>], servers: usize, cache: usize) -> Self {
        let shared = Shared { registry: Registry::new(7), labels: Labels::default() };
        let label = |pairs: &[(&str, &str)]| shared.labels.intern(Params::from_pairs(pairs.iter().copied()));
        let client = |(index, script): (usize, &Vec<u8>)| Client {
            session: ClientSession::new(index as u64 + 1, label(&[&DEFAULTS[..], STARTUP[index]].concat())),
            unsent: script.clone(),
            pending: Vec::new(),
            server: None,
            received: Vec::new(),
        };
        let link = |_| Link {
            session: ServerSession::new(label(&DEFAULTS), &[]),
            model: Server::new(&DEFAULTS),
            pending: Vec::new(),
            client: None,
        };
        let clients = scripts.iter().enumerate().map(client).collect();
        let servers = (0..servers).map(link).collect();
        Self { clients, servers, shared, cache, now: STEP }
    }

    /// Makes these moves, then whatever moves are left to make, until nothing moves.
    pub(super) fn play(&mut self, moves: &[Move]) {
        for next in moves {
            self.make(*next);
        }
        while (0..self.clients.len()).any(|who| self.make(Move { up: true, who, bytes: usize::MAX }))
            | (0..self.servers.len()).any(|who| self.make(Move { up: false, who, bytes: usize::MAX }))
        {
        }
        for client in &self.clients {
            assert!(client.unsent.is_empty() && client.pending.is_empty(), "stuck: {client:?}");
            assert_eq!(client.server, None);
        }
        for link in &self.servers {
            assert!(link.session.is_free() && link.session.pipeline.is_empty(), "still owes: {link:?}");
            assert_eq!(link.session.spoiled, None);
        }
    }

    pub(super) fn received(&self, client: usize) -> Vec<String> {
        frames(&self.clients[client].received)
    }

    /// Returns whether anything moved.
    fn make(&mut self, Move { up, who, bytes }: Move) -> bool {
        self.now += STEP;
        if up { self.up(who % self.clients.len(), bytes) } else { self.down(who % self.servers.len(), bytes) }
    }

    fn up(&mut self, who: usize, bytes: usize) -> bool {
        let client = &mut self.clients[who];
        if client.session.held {
            return false;
        }
        let n = bytes.min(client.unsent.len());
        client.pending.extend(client.unsent.drain(..n));
        let mut input = std::mem::take(&mut client.pending);
        let mut used = 0;
        if client.server.is_none() {
            let ignored =
                |h: &Header| matches!(h.tag, fe::FLUSH | fe::COPY_DATA | fe::COPY_DONE | fe::COPY_FAIL);
            while let Some(h) = Header::peek(&input[used..]).filter(ignored)
                && input.len() - used >= h.total()
            {
                used += h.total();
            }
            let whole = Header::peek(&input[used..])
                .is_some_and(|h| input.len() - used >= h.total().min(STREAM_OVER));
            if whole && let Some(free) = self.servers.iter().position(|s| s.client.is_none()) {
                // Any free server will do: take turns.
                let free = (0..self.servers.len())
                    .map(|i| (who + n + i) % self.servers.len())
                    .find(|&i| self.servers[i].client.is_none())
                    .unwrap_or(free);
                self.servers[free].client = Some(who);
                self.clients[who].server = Some(free);
            }
        }
        if let Some(server) = self.clients[who].server {
            used += self.forward(who, server, &input[used..]);
        }
        input.drain(..used);
        self.clients[who].pending = input;
        n + used > 0
    }

    fn forward(&mut self, who: usize, server: usize, input: &[u8]) -> usize {
        let (client, link) = (&mut self.clients[who], &mut self.servers[server]);
        let mut staged = Vec::new();
        let mut out = Outgoing::new(input, &mut staged);
        if link.session.is_free() {
            link.session.adopt(&mut client.session, |sql| encode::query(out.inject(), sql));
        }
        let mut upstream = Upstream {
            client: &mut client.session,
            server: &mut link.session,
            shared: &self.shared,
            max_statements: NonZeroUsize::new(self.cache),
            max_packet_size: usize::MAX,
            simple: true,
            now: self.now,
            counts: Counts::default(),
            flush: false,
            hidden: None,
            listens: false,
            heard: true,
            lacks: None,
            refuses: false,
            queries: None,
            pool: 0,
        };
        let (used, stop) = upstream.translate(input, &mut out);
        let flush = upstream.flush;
        assert!(matches!(stop, Stop::NeedMore | Stop::Held), "{stop:?}");
        link.model.feed(out.finish());
        let held = link.model.named.len();
        assert!(held <= self.cache, "{held} statements on a server that may have {}", self.cache);
        let mut answered = false;
        while flush && let Some(synthetic) = link.session.next_synthetic() {
            write_synthetic(&mut client.received, synthetic);
            answered = true;
        }
        client.session.held = stop == Stop::Held && !answered;
        used
    }

    fn down(&mut self, who: usize, bytes: usize) -> bool {
        let link = &mut self.servers[who];
        let n = bytes.min(link.model.output.len());
        if n == 0 {
            return false;
        }
        link.pending.extend(link.model.output.drain(..n));
        let mut input = std::mem::take(&mut link.pending);
        let index = link.client.expect("a server that nobody uses has nothing to say");
        let client = &mut self.clients[index];
        let mut staged = Vec::new();
        let mut out = Outgoing::new(&input, &mut staged);
        let mut downstream = Downstream::new(&mut client.session, &mut link.session, &self.shared);
        let used = downstream.translate(&input, &mut out).unwrap();
        link.model.feed(&downstream.request);
        client.received.extend_from_slice(out.finish());
        assert_eq!(link.session.injected_failed, None);
        input.drain(..used);
        link.pending = input;
        client.session.held = false;
        if link.session.is_free() && client.session.passing == 0 && !self.waits(index) {
            self.servers[who].client = None;
            self.clients[index].server = None;
        }
        true
    }

    /// A message was held that the server must stay for.
    fn waits(&self, client: usize) -> bool {
        let client = &self.clients[client];
        Header::peek(&client.pending).is_some_and(|h| client.pending.len() >= h.total())
    }
}

/// What comes out at the other ends of a request and its reply that come in reads of these lengths.
pub(super) fn pass(request: &[u8], reply: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let mut stage = Stage::new(&[request.to_vec()], 1, 1);
    stage.servers[0].model.deaf = true;
    cuts.iter().cycle().take_while(|&&bytes| stage.up(0, bytes)).for_each(drop);
    stage.servers[0].model.output = reply.to_vec();
    cuts.iter().cycle().take_while(|&&bytes| stage.down(0, bytes)).for_each(drop);
    assert!(stage.servers[0].session.is_free());
    (std::mem::take(&mut stage.servers[0].model.input), std::mem::take(&mut stage.clients[0].received))
}

/// Messages, one line each.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while let Some(header) = Header::peek(bytes) {
        let (message, rest) = bytes.split_at(header.total());
        let body = String::from_utf8_lossy(&message[HEADER..]).into_owned();
        let first = split_cstr(&message[HEADER..]).map_or(0, |(first, _)| first.len());
        frames.push(format!("{} {first} {body:?}", char::from(header.tag)));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "ends within a message");
    frames
}
