//! A client that sends any bytes at any moment and keeps every message it gets.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
};

use super::msg::{self, Frame};

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(15);

pub(super) trait Stream: Read + Write + Send + Sync {
    fn shut(&self, how: Shutdown) -> io::Result<()>;
    fn set_timeout(&self, timeout: Duration) -> io::Result<()>;
    fn again(&self) -> io::Result<Box<dyn Stream>>;
}

impl Stream for TcpStream {
    fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
    fn again(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

impl Stream for UnixStream {
    fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
    fn again(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

/// How messages are cut into writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// Everything in one write.
    Whole,
    /// So many bytes in each write.
    Of(usize),
}

/// A connection to a server or to pooler.
pub struct Raw {
    stream: Box<dyn Stream>,
    peer: Option<SocketAddr>,
    /// How what is sent is cut.
    pub chunks: Chunks,
    /// Every message since login.
    pub received: Vec<Frame>,
    /// Parameters that the server reported during login.
    pub parameters: Vec<(String, String)>,
    /// BackendKeyData: process id and secret together, as a CancelRequest has them.
    pub key: Vec<u8>,
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({:?}, received {:?})", self.peer, self.received)
    }
}

impl Raw {
    /// Connects to 127.0.0.1 and sends nothing.
    pub fn open(port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).unwrap();
        Self::new(Box::new(stream), Some(address))
    }

    fn new(stream: Box<dyn Stream>, peer: Option<SocketAddr>) -> Self {
        stream.set_timeout(PATIENCE).unwrap();
        let (received, parameters, key) = Default::default();
        Self { stream, peer, chunks: Chunks::Whole, received, parameters, key }
    }

    /// On a connection that somebody else has set up.
    pub(super) fn over(stream: impl Stream + 'static) -> Self {
        Self::new(Box::new(stream), None)
    }

    /// Logs in at 127.0.0.1.
    pub fn login(port: u16, user: &str, database: &str, password: &str) -> Self {
        Self::login_with(port, user, database, password, &[])
    }

    /// Logs in with further startup parameters.
    pub fn login_with(port: u16, user: &str, database: &str, password: &str, more: &[(&str, &str)]) -> Self {
        let mut raw = Self::open(port);
        if let Err(error) = raw.try_login(user, database, password, more) {
            panic!("login of {user} to {database} at port {port}: {error:?}");
        }
        raw
    }

    /// Connects to a unix socket and sends nothing.
    pub fn open_unix(socket: &Path) -> Self {
        let stream =
            UnixStream::connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        Self::new(Box::new(stream), None)
    }

    /// Logs in over a unix socket, without a password.
    pub fn login_unix(socket: &Path, user: &str, database: &str) -> Self {
        let mut raw = Self::open_unix(socket);
        raw.try_login(user, database, "", &[]).unwrap_or_else(|error| panic!("login of {user}: {error:?}"));
        raw
    }

    /// Logs in on an open connection; the server's error if it refuses.
    pub fn try_login(
        &mut self,
        user: &str,
        database: &str,
        password: &str,
        more: &[(&str, &str)],
    ) -> Result<(), Frame> {
        let mut pairs = vec![("user", user), ("database", database)];
        pairs.extend(more);
        self.send(&startup(3 << 16, &pairs));
        self.log_in(user, password)
    }

    /// From a startup packet that has been sent to ReadyForQuery.
    pub fn finish_login(&mut self, user: &str, password: &str) {
        self.log_in(user, password).unwrap_or_else(|error| panic!("login of {user}: {error:?}"));
    }

    fn log_in(&mut self, user: &str, password: &str) -> Result<(), Frame> {
        let mut scram = None;
        loop {
            let frame = self.frame();
            match frame.tag {
                b'E' => return Err(frame),
                b'R' => self.answer(&frame.body, user, password, &mut scram),
                b'S' => {
                    let text = String::from_utf8(frame.body).unwrap();
                    let mut parts = text.split('\0').map(str::to_owned);
                    self.parameters.push((parts.next().unwrap(), parts.next().unwrap()));
                }
                b'K' => self.key = frame.body,
                b'Z' => break,
                b'N' => {}
                _ => panic!("{frame:?} during login"),
            }
        }
        self.received.clear();
        Ok(())
    }

    fn answer(&mut self, body: &[u8], user: &str, password: &str, scram: &mut Option<ScramSha256>) {
        let (code, data) = body.split_first_chunk::<4>().unwrap();
        let reply = match u32::from_be_bytes(*code) {
            0 => return,
            3 => [password.as_bytes(), b"\0"].concat(),
            5 => {
                let hash = md5_hash(user.as_bytes(), password.as_bytes(), data.try_into().unwrap());
                [hash.as_bytes(), b"\0"].concat()
            }
            10 => {
                let started = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                let first = scram.insert(started).message();
                let len = u32::try_from(first.len()).unwrap().to_be_bytes();
                [SCRAM_SHA_256.as_bytes(), b"\0", &len, first].concat()
            }
            11 => {
                let scram = scram.as_mut().unwrap();
                scram.update(data).unwrap();
                scram.message().to_vec()
            }
            12 => return scram.as_mut().unwrap().finish(data).unwrap(),
            other => panic!("authentication request {other}"),
        };
        self.send(&msg::build(b'p', |b| b.extend(reply)));
    }

    /// A parameter that was reported during login.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Process id that BackendKeyData named.
    pub fn pid(&self) -> u32 {
        u32::from_be_bytes(self.key[..4].try_into().unwrap())
    }

    /// Sends bytes, cut as [`Raw::chunks`] says.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("send: {error}; {self:?}"));
    }

    /// Sends messages together.
    pub fn send_all(&mut self, messages: &[Vec<u8>]) {
        self.send(&messages.concat());
    }

    /// Sends in the background, for more than the other side takes before it is read from.
    pub fn send_meanwhile(&mut self, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
        let mut stream = self.stream.again().unwrap();
        std::thread::spawn(move || {
            // Fails when the test is over.
            let _ = stream.write_all(&bytes);
        })
    }

    /// Sends from another thread, as far as the other side takes it.
    pub fn sender(&self) -> impl FnMut(&[u8]) -> io::Result<()> + Send + use<> {
        let mut stream = self.stream.again().unwrap();
        move |bytes| stream.write_all(bytes)
    }

    /// Sends bytes, or says why they could not be sent.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.chunks {
            // A large value in tiny writes would test patience and nothing else.
            Chunks::Of(size) if bytes.len() <= 4096 * size => {
                bytes.chunks(size).try_for_each(|chunk| self.stream.write_all(chunk))
            }
            _ => self.stream.write_all(bytes),
        }
    }

    /// Next message; `None` when the other side has closed the connection.
    pub fn try_frame(&mut self) -> io::Result<Option<Frame>> {
        let mut header = [0; 5];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let [tag, len @ ..] = header;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap() - 4];
        self.stream.read_exact(&mut body)?;
        let frame = Frame { tag, body };
        self.received.push(frame.clone());
        Ok(Some(frame))
    }

    /// Next message.
    pub fn frame(&mut self) -> Frame {
        match self.try_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the connection was closed; {self:?}"),
            Err(error) => panic!("no message: {error}; {self:?}"),
        }
    }

    /// Reads until a message of this type, which comes last.
    pub fn until(&mut self, tag: u8) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.frame();
            let found = frame.tag == tag;
            frames.push(frame);
            if found {
                return frames;
            }
        }
    }

    /// Reads until the n-th ReadyForQuery from now.
    pub fn ready(&mut self, n: usize) -> Vec<Frame> {
        (0..n).flat_map(|_| self.until(b'Z')).collect()
    }

    /// Reads until the other side closes the connection.
    pub fn closed(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.try_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(error) => panic!("still open: {error}; {self:?}"),
            }
        }
    }

    /// Bytes as they come, without looking for messages in them.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{error}"));
        bytes
    }

    /// Whatever else comes until the other side closes the connection, message or not.
    pub fn drain(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        self.stream.read_to_end(into)
    }

    /// Asserts that no message comes within so long; for replies that must not be there (use it rarely: it waits).
    pub fn silent(&mut self, time: Duration) {
        self.stream.set_timeout(time).unwrap();
        match self.try_frame() {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            other => panic!("{other:?} where silence was expected; {self:?}"),
        }
        self.stream.set_timeout(PATIENCE).unwrap();
    }

    /// Next message, if one comes within so long.
    pub fn within(&mut self, time: Duration) -> Option<Frame> {
        self.stream.set_timeout(time.max(Duration::from_millis(1))).unwrap();
        let frame = match self.try_frame() {
            Ok(frame) => frame,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
            Err(error) => panic!("no message: {error}; {self:?}"),
        };
        self.stream.set_timeout(PATIENCE).unwrap();
        frame
    }

    /// Rows of a simple query, columns joined by `|`; panics on an error.
    pub fn sql(&mut self, sql: &str) -> Vec<String> {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Rows of a simple query, or its error.
    pub fn try_sql(&mut self, sql: &str) -> Result<Vec<String>, Frame> {
        self.send(&msg::query(sql));
        let frames = self.ready(1);
        match frames.iter().find(|frame| frame.tag == b'E') {
            Some(error) => Err(error.clone()),
            None => Ok(frames.iter().filter(|frame| frame.tag == b'D').map(Frame::row).collect()),
        }
    }

    /// Ends the sending direction, as a client that dies between messages.
    pub fn finish_sending(&self) {
        match self.stream.shut(Shutdown::Write) {
            // The other side has reset the connection already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            done => done.unwrap(),
        }
    }

    /// Ends both directions, also for what is being sent in the background.
    pub fn disconnect(&self) {
        self.stream.shut(Shutdown::Both).unwrap();
    }

    /// Sends a CancelRequest for this session on a connection of its own and waits until that is closed.
    pub fn cancel(&self) {
        self.cancel_with(&self.key);
    }

    /// The same with any key.
    pub fn cancel_with(&self, key: &[u8]) {
        let mut other = Self::open(self.peer.expect("TCP").port());
        other.send(&cancel_request(key));
        assert_eq!(other.closed(), [], "a CancelRequest has no answer");
    }
}

/// A startup packet.
pub fn startup(version: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in pairs {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    packet(&body)
}

/// A CancelRequest.
pub fn cancel_request(key: &[u8]) -> Vec<u8> {
    packet(&[&80_877_102_u32.to_be_bytes(), key].concat())
}

/// A packet without a tag: length and body.
pub fn packet(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
}
