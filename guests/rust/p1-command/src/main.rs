//! A command-line program; its first argument says what to do. Invoked by HTTP it answers as a CGI program.
//!
//! `args`, `env`, `stdin` (copy to stdout), `stderr TEXT`, `cat FILE`, `write FILE TEXT`, `ls DIR`,
//! `sleep MILLISECONDS`, `clock`, `exit CODE`, `fail FILE TEXT CODE` (writes, and then exits). With REQUEST_METHOD set
//! and no argument: JSON of the CGI variables and of the body; PATH_INFO `/status` asks for a status, `/plain` for no
//! header block.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, io, thread};

use serde_json::{Map, json};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{}: {error}", args.join(" "));
            ExitCode::from(2)
        }
    }
}

fn run(args: &[&str]) -> io::Result<u8> {
    match args {
        [] if env::var_os("REQUEST_METHOD").is_some() => cgi()?,
        [] | ["args", ..] => println!("{}", json!(args)),
        ["env"] => println!("{}", json!(variables(""))),
        ["stdin"] => {
            io::copy(&mut io::stdin().lock(), &mut io::stdout().lock())?;
        }
        ["stderr", text] => eprintln!("{text}"),
        ["cat", file] => io::stdout().write_all(&fs::read(file)?)?,
        ["write", file, text] => fs::write(file, text)?,
        ["ls", dir] => {
            let mut names: Vec<String> = fs::read_dir(dir)?
                .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
                .collect();
            names.sort();
            println!("{}", json!(names));
        }
        ["sleep", milliseconds] => {
            let from = Instant::now();
            thread::sleep(Duration::from_millis(milliseconds.parse().unwrap_or(0)));
            println!("{}", from.elapsed().as_millis());
        }
        ["clock"] => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            println!("{}", now.as_secs());
        }
        ["fail", file, text, code] => {
            fs::write(file, text)?;
            return Ok(code.parse().unwrap_or(1));
        }
        ["exit", code] => return Ok(code.parse().unwrap_or(1)),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such command")),
    }
    Ok(0)
}

fn cgi() -> io::Result<()> {
    let mut body = String::new();
    io::stdin().read_to_string(&mut body)?;
    let path = env::var("PATH_INFO").unwrap_or_default();
    let mut all = variables("HTTP_");
    for name in ["REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH"] {
        all.insert(name.to_owned(), json!(env::var(name).ok()));
    }
    match path.as_str() {
        "/plain" => print!("no header block, {} bytes of body\n", body.len()),
        "/status" => print!("Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nnothing here\n"),
        _ => print!("Content-Type: application/json\n\n{}\n", json!({"cgi": all, "body": body})),
    }
    Ok(())
}

fn variables(prefix: &str) -> Map<String, serde_json::Value> {
    env::vars()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, value)| (name, json!(value)))
        .collect()
}
