//! A server on loopback that speaks the paths of the release servers and the registry protocol, for tests.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// How it behaves.
#[derive(Debug, Default)]
pub(super) struct Behaviour {
    /// What lies where.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// The first answers to a path are of this length only, then the connection ends.
    pub(super) breaks: BTreeMap<String, Vec<usize>>,
    /// The first answers to a path have this status.
    pub(super) statuses: BTreeMap<String, Vec<u16>>,
    /// Paths that lead elsewhere.
    pub(super) redirects: BTreeMap<String, String>,
    /// What everything below /v2/ wants: name and password that a token is given for.
    pub(super) login: Option<(String, String)>,
    /// Whether it wants name and password with each request, instead of a token for them.
    pub(super) basic: bool,
    /// The identity token that it takes instead of name and password.
    pub(super) identity: Option<String>,
    /// Whether the middle of a file can be asked for.
    pub(super) no_ranges: bool,
    /// What was asked: `GET /path`, with ` from N` where a part was asked for.
    pub(super) asked: Vec<String>,
    /// Its own URL.
    pub(super) url: String,
}

const TOKEN: &str = "a-token-of-this-server";

/// Starts it; it lives as long as the process.
pub(super) fn start(behaviour: Behaviour) -> (String, Arc<Mutex<Behaviour>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let behaviour = Arc::new(Mutex::new(Behaviour { url: url.clone(), ..behaviour }));
    let shared = behaviour.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = shared.clone();
            std::thread::spawn(move || serve(stream, &shared));
        }
    });
    (url, behaviour)
}

fn serve(stream: TcpStream, shared: &Mutex<Behaviour>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = || {
        let mut line = String::new();
        let _ = reader.read_line(&mut line);
        line.trim_end().to_owned()
    };
    let request = line();
    let path = request.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let (mut from, mut authorization, mut length) = (None, String::new(), 0);
    loop {
        let header = line();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(": ").unwrap_or_default();
        match name.to_lowercase().as_str() {
            "range" => from = value.strip_prefix("bytes=").and_then(|range| range.trim_end_matches('-').parse().ok()),
            "authorization" => authorization = value.to_owned(),
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    // A form is told apart from what is asked for by its body.
    let form = String::from_utf8_lossy(&body).into_owned();
    let answer = shared.lock().unwrap().answer(&path, from, &authorization, &form);
    let mut stream = stream;
    let length = answer.body.len();
    let head = format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {length}\r\n", answer.status);
    let headers: String = answer.headers.iter().map(|header| format!("{header}\r\n")).collect();
    let _ = stream.write_all(format!("{head}{headers}\r\n").as_bytes());
    let _ = stream.write_all(&answer.body[..length.min(answer.cut)]);
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// So much of the body is sent.
    cut: usize,
}

impl Behaviour {
    fn answer(&mut self, path: &str, from: Option<usize>, authorization: &str, form: &str) -> Answer {
        let part = from.map(|from| format!(" from {from}")).unwrap_or_default();
        self.asked.push(format!("GET {path}{part}"));
        let plain = |status, headers: Vec<String>, body: &[u8]| Answer {
            status,
            headers,
            body: body.to_vec(),
            cut: usize::MAX,
        };
        let bare = path.split('?').next().unwrap_or(path);
        if let Some(status) = self.statuses.get_mut(bare).and_then(Vec::pop) {
            return plain(status, Vec::new(), b"");
        }
        if let Some(identity) = &self.identity
            && path == "/token"
        {
            let good = form.contains("grant_type=refresh_token") && form.contains(&format!("refresh_token={identity}"));
            let token = format!("{{\"access_token\":\"{TOKEN}\"}}");
            return plain(if good { 200 } else { 401 }, Vec::new(), token.as_bytes());
        }
        if let Some((user, password)) = &self.login {
            use base64::Engine as _;
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            if self.basic && path.starts_with("/v2/") {
                if authorization != format!("Basic {pair}") {
                    return plain(401, vec!["www-authenticate: Basic realm=\"test\"".to_owned()], b"");
                }
            } else if path.starts_with("/token?") {
                let good = authorization == format!("Basic {pair}");
                let token = format!("{{\"token\":\"{TOKEN}\"}}");
                return plain(if good { 200 } else { 401 }, Vec::new(), token.as_bytes());
            }
            if !self.basic && path.starts_with("/v2/") && authorization != format!("Bearer {TOKEN}") {
                let challenge = format!("www-authenticate: Bearer realm=\"{}/token\",service=\"test\"", self.url);
                return plain(401, vec![challenge], b"");
            }
        }
        if let Some(to) = self.redirects.get(path) {
            return plain(302, vec![format!("location: {to}")], b"");
        }
        let Some(file) = self.files.get(path) else { return plain(404, Vec::new(), b"not here") };
        let cut = self.breaks.get_mut(path).and_then(Vec::pop).unwrap_or(usize::MAX);
        match from {
            Some(from) if self.no_ranges || from == 0 => Answer { cut, ..plain(200, Vec::new(), file) },
            Some(from) if from >= file.len() => plain(416, Vec::new(), b""),
            Some(from) => {
                let range = format!("content-range: bytes {from}-{}/{}", file.len() - 1, file.len());
                Answer { cut, ..plain(206, vec![range], &file[from..]) }
            }
            None => Answer { cut, ..plain(200, Vec::new(), file) },
        }
    }
}
