//! What was acknowledged is there after the host was killed at any moment.

use crate::support::{Setting, eventually, http::Client};
use std::sync::Mutex;
use std::thread;

const ROUNDS: u32 = 10;
const WRITERS: u32 = 4;

/// Acknowledged writes before the kill; another number in each round, so that it falls on other moments.
fn enough(round: u32) -> usize {
    100 + round as usize * 37
}

#[test]
fn acknowledged_writes_survive_a_kill() {
    let setting = Setting::with_manifest("[apps.any]\nmodule = `http-hello`\nroutes = [\"/\"]\n");
    let acknowledged = Mutex::new(Vec::new());
    for round in 0..ROUNDS {
        let host = setting.up(&[]);
        let api = host.api.unwrap();
        let before = acknowledged.lock().unwrap().len();
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let acknowledged = &acknowledged;
                scope.spawn(move || {
                    let mut client = Client::connect(api);
                    for number in 0.. {
                        let key = format!("{round}-{writer}-{number}");
                        let body = format!(r#"[{{"key":"{key}","value":"{key}"}}]"#);
                        // The kill ends the connection.
                        let Ok(answer) =
                            client.try_send("POST", "/v1.0/state/statestore", &[], body.as_bytes())
                        else {
                            break;
                        };
                        assert_eq!(answer.status, 204, "{}", answer.text());
                        acknowledged.lock().unwrap().push(key);
                    }
                });
            }
            eventually("writes", || {
                (acknowledged.lock().unwrap().len() >= before + enough(round)).then_some(())
            });
            host.kill();
        });
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    let host = setting.up(&[]);
    let mut client = Client::connect(host.api.unwrap());
    for keys in acknowledged.chunks(500) {
        let body = serde_json::json!({ "keys": keys }).to_string();
        let found = client.send("POST", "/v1.0/state/statestore/bulk", &[], body.as_bytes()).json();
        for (key, found) in keys.iter().zip(found.as_array().unwrap()) {
            assert_eq!(
                (found["key"].as_str(), found["data"].as_str()),
                (Some(key.as_str()), Some(key.as_str()))
            );
        }
    }
    host.stop();
}
