//! A gate before a server: checks each request, in Python, and passes it on to a server that lets everybody in.
//!
//! moto takes what S3 takes and asks nobody for anything; what a request has to show is checked before it.

use dhow_servers::{Process, python_with_clouds};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// `check(request)` stands before it, and raises what it does not like. Prints its port.
const PASS: &str = r#"
import http.client, http.server, sys
MINE = ("authorization", "connection", "content-length", "date", "host", "server", "transfer-encoding")
class Gate(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            check(self)
        except Exception as refused:
            status, headers = 401, []
            said = f"<Error><Code>AuthenticationRequired</Code><Message>{refused!r}</Message></Error>".encode()
        else:
            way = http.client.HTTPConnection(sys.argv[1])
            kept = {name: value for name, value in self.headers.items() if name.lower() not in MINE}
            kept["Authorization"] = "AWS4-HMAC-SHA256 Credential=a/20300101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=b"
            way.request(self.command, self.path, body, kept)
            passed = way.getresponse()
            status, headers, said = passed.status, passed.getheaders(), passed.read()
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in MINE:
                self.send_header(name, value)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer
    def log_message(self, *args): pass
gate = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate)
print(gate.server_port, flush=True)
gate.serve_forever()
"#;

/// A gate, killed at the end.
pub(crate) struct Gate {
    process: Child,
    port: String,
}

impl Gate {
    /// Before that server. The check finds its arguments from the third of `sys.argv` on.
    pub(crate) fn before(server: &Process, check: &str, args: &[&str]) -> Gate {
        let mut command = Command::new(python_with_clouds().unwrap());
        command.args(["-c", &format!("{check}{PASS}"), &server.address()]).args(args);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Gate { process, port: port.trim().to_owned() }
    }

    /// `127.0.0.1:port`
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `http://127.0.0.1:port`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
