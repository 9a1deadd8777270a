//! Kills, races and arbitrary requests: nothing half-written is ever visible, and the registry goes on.

use crate::client::*;
use crate::support::eventually;
use serde_json::json;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Fixed, so that a failure comes again.
const SEED: u64 = 0x5eed_0001;

over_storages! {
    a_kill_at_any_moment_of_an_upload_leaves_nothing_half_written,
}

fn a_kill_at_any_moment_of_an_upload_leaves_nothing_half_written(mut registry: Registry) {
    let mut state = SEED;
    for round in 0..25_u64 {
        let blob = noise(1000 + round, 3 << 20);
        let (digest, tag) = (digest(&blob), format!("v{round}"));
        let client = registry.client();
        let killed = AtomicBool::new(false);
        let delay = Duration::from_micros(random(&mut state) % 40_000);
        let pid = libc::pid_t::try_from(registry.host.pid()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(delay);
                // SAFETY: `kill` takes plain numbers, and the child is not reaped before `kill_and_start`.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                killed.store(true, Ordering::Release);
            });
            // Pushes in chunks until the connection breaks.
            let push = || -> std::io::Result<()> {
                let begun = client.try_send("POST", "/v2/a/blobs/uploads/", &[], b"")?;
                let upload = begun.header("location").unwrap_or_default().to_owned();
                for chunk in blob.chunks(700_000) {
                    client.try_send("PATCH", &upload, &[], chunk)?;
                }
                client.try_send("PUT", &format!("{upload}?digest={digest}"), &[], b"")?;
                client.try_send(
                    "POST",
                    &format!("/v2/a/blobs/uploads/?digest={}", crate::client::digest(b"{}")),
                    &[],
                    b"{}",
                )?;
                let manifest = manifest("application/octet-stream", &blob);
                client.try_send(
                    "PUT",
                    &format!("/v2/a/manifests/{tag}"),
                    &[("content-type", MANIFEST)],
                    &manifest,
                )?;
                Ok(())
            };
            while !killed.load(Ordering::Acquire) && push().is_ok() {
                std::hint::spin_loop();
            }
        });
        registry = registry.kill_and_start(&[]);
        let client = registry.client();
        // The blob is whole or not there; so is the manifest, and with it the blob.
        let found = client.get(&format!("/v2/a/blobs/{digest}"));
        assert!(
            found.status == 404 || found.body == blob,
            "round {round}: {} {}",
            found.status,
            found.body.len()
        );
        let named = client.get(&format!("/v2/a/manifests/{tag}"));
        match named.status {
            200 => {
                assert_eq!(named.body, manifest("application/octet-stream", &blob));
                assert_eq!(found.status, 200, "round {round}: a manifest without its blob");
            }
            status => assert_eq!(status, 404),
        }
        // Again, and it is there.
        client.push("a", &tag, "application/octet-stream", &blob);
        assert!(client.get(&format!("/v2/a/blobs/{digest}")).body == blob, "round {round}");
    }
    let ended = registry.setting.run(&["registry", "scrub", "--data-dir", "registry"]);
    assert_eq!(ended.code, Some(0), "{}", ended.out);
    assert_eq!(registry.client().get("/v2/a/tags/list").json()["tags"].as_array().unwrap().len(), 25);
    let temporary = registry.setting.path().join("registry/tmp");
    assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0);
}

#[test]
fn an_upload_goes_on_after_a_lost_connection_and_after_a_kill() {
    let registry = Registry::start();
    let client = registry.client();
    let blob = noise(7, 4 << 20);
    let upload = client.begin("a");
    // Half of what is announced, and then nobody is there.
    let mut stream = TcpStream::connect(client.addr).unwrap();
    write!(stream, "PATCH {upload} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", blob.len())
        .unwrap();
    stream.write_all(&blob[..1_500_000]).unwrap();
    drop(stream);
    // All that arrived is kept.
    let length = 1_500_000;
    eventually("the upload to be let go", || {
        (client.get(&upload).header("range") == Some("0-1499999")).then_some(())
    });
    let range = format!("{length}-{}", length + 999_999);
    let next = &blob[length..length + 1_000_000];
    let answer = client.send("PATCH", &upload, &[("content-range", &range)], next);
    assert_eq!(answer.status, 202, "{}", answer.text());

    let registry = registry.kill_and_start(&[]);
    let client = registry.client();
    let answer = client.get(&upload);
    let expected = format!("0-{}", length + 999_999);
    assert_eq!((answer.status, answer.header("range")), (204, Some(expected.as_str())));
    let answer =
        client.send("PUT", &format!("{upload}?digest={}", digest(&blob)), &[], &blob[length + 1_000_000..]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(client.get(&format!("/v2/a/blobs/{}", digest(&blob))).body == blob);
}

#[test]
fn of_two_pushes_of_one_tag_one_wins_whole() {
    let registry = Registry::start();
    let client = registry.client();
    client.push_blob("a", b"{}");
    let layers: Vec<Vec<u8>> = (0..8).map(|seed| noise(seed, 1000)).collect();
    let manifests: Vec<Vec<u8>> = layers
        .iter()
        .map(|layer| {
            client.push_blob("a", layer);
            manifest("application/octet-stream", layer)
        })
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::Acquire) {
                let answer = client.get("/v2/a/manifests/race");
                if answer.status == 200 {
                    assert!(manifests.contains(&answer.body), "a manifest that nobody pushed");
                    assert_eq!(answer.header("docker-content-digest"), Some(&*digest(&answer.body)));
                    seen += 1;
                }
            }
            seen
        });
        let pushers: Vec<_> = manifests
            .iter()
            .map(|manifest| {
                scope.spawn(move || {
                    for _ in 0..30 {
                        assert_eq!(client.put_manifest("a", "race", manifest).status, 201);
                    }
                })
            })
            .collect();
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        done.store(true, Ordering::Release);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(client.get("/v2/a/tags/list").json()["tags"], json!(["race"]));
    // Who expects what is there changes it; of several who expect the same, one does.
    let etag = client.get("/v2/a/manifests/race").header("etag").unwrap().to_owned();
    let before = client.get("/v2/a/manifests/race").body;
    let won = std::thread::scope(|scope| {
        let others = manifests.iter().filter(|manifest| **manifest != before);
        let attempts: Vec<_> = others
            .map(|manifest| {
                let headers = [("content-type", MANIFEST), ("if-match", etag.as_str())];
                scope.spawn(move || client.send("PUT", "/v2/a/manifests/race", &headers, manifest).status)
            })
            .collect();
        attempts
            .into_iter()
            .filter(|_| true)
            .map(|attempt| attempt.join().unwrap())
            .filter(|status| *status == 201)
            .count()
    });
    assert_eq!(won, 1);
}

#[test]
fn two_who_write_to_one_upload_do_not_mix() {
    let registry = Registry::start();
    let client = registry.client();
    let (one, two) = (noise(1, 2 << 20), noise(2, 2 << 20));
    for _ in 0..10 {
        let upload = client.begin("a");
        let patch =
            |bytes: &[u8]| client.send("PATCH", &upload, &[("content-range", "0-2097151")], bytes).status;
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| patch(&one));
            let second = scope.spawn(|| patch(&two));
            (first.join().unwrap(), second.join().unwrap())
        });
        let winner = match (first, second) {
            (202, 416) => &one,
            (416, 202) => &two,
            other => panic!("{other:?}"),
        };
        let answer = client.send("PUT", &format!("{upload}?digest={}", digest(winner)), &[], b"");
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

#[test]
fn any_request_is_answered_and_harms_nobody() {
    let registry = Registry::start();
    let client = registry.client();
    let kept = noise(9, 50_000);
    let manifest = client.push("kept/safe", "v1", "application/octet-stream", &kept);
    let mut state = SEED;
    let end = Instant::now() + Duration::from_secs(10);
    let mut uploads = vec![client.begin("a")];
    let mut answered = 0;
    while Instant::now() < end && answered < 4000 {
        let mut pick = |choices: &[&str]| {
            choices[usize::try_from(random(&mut state)).unwrap() % choices.len()].to_owned()
        };
        let method = pick(&["GET", "HEAD", "POST", "PUT", "PATCH", "PUT", "PATCH", "OPTIONS"]);
        let name =
            pick(&["a", "a/b", "A", "..", "%2e%2e", "", "a//b", "\u{7f}", "%00", "a/_tags", "uploads"]);
        let length = pick(&["0", "1", "10", "70000"]).parse().unwrap();
        let digest_of = digest(&noise(length as u64, length));
        let id = pick(&["x", "../../blobs", "%2e%2e%2f", "00000000-0000-0000-0000-000000000000"]);
        let reference = pick(&["v1", ".", "sha256:", "sha256:zz", "%ff", "v1%2f..", digest_of.as_str()]);
        let tail = pick(&[
            "?digest=",
            "?digest=sha512:",
            "?mount=",
            "?n=-1&last=%",
            "",
            "?&&==",
            "?digest=sha256:..%2f..",
        ]);
        let upload = uploads[usize::try_from(random(&mut state)).unwrap() % uploads.len()].clone();
        let mut pick = |choices: &[&str]| {
            choices[usize::try_from(random(&mut state)).unwrap() % choices.len()].to_owned()
        };
        let target = pick(&[
            &format!("/v2/{name}/blobs/uploads/{tail}"),
            &format!("/v2/{name}/blobs/uploads/{id}{tail}"),
            &format!("/v2/{name}/blobs/{reference}"),
            &format!("/v2/{name}/manifests/{reference}"),
            &format!("/v2/{name}/tags/list{tail}"),
            &format!("{upload}?digest={digest_of}"),
            &upload,
            &upload,
            &format!("/api/v1/search{tail}"),
            &format!("/{tail}"),
        ]);
        let content_range = pick(&[
            "",
            "0-0",
            "0-9",
            "10-5",
            "bytes 0-69999/*",
            "-",
            "99999999999999999999-0",
            "0-18446744073709551615",
        ]);
        let range = pick(&["", "bytes=0-", "bytes=-1", "bytes=5-1", "bytes=0-0,1-1"]);
        let mut headers = vec![("content-type", MANIFEST)];
        headers.extend((!content_range.is_empty()).then_some(("content-range", content_range.as_str())));
        headers.extend((!range.is_empty()).then_some(("range", range.as_str())));
        let target: String = target.chars().filter(|c| *c != '\u{7f}').collect();
        // A server may close the connection of a request whose body it does not want.
        let Ok(answer) = client.try_send(&method, &target, &headers, &noise(length as u64, length)) else {
            continue;
        };
        assert!(answer.status < 500, "{method} {target} {headers:?}: {} {}", answer.status, answer.text());
        answered += 1;
        if let Some(location) = answer.header("location").filter(|_| answer.status == 202 && method == "POST")
            && uploads.len() < 20
        {
            uploads.push(location.to_owned());
        }
    }
    assert!(answered > 200, "{answered}");
    assert!(client.get("/v2/kept/safe/manifests/v1").header("docker-content-digest") == Some(&manifest));
    assert!(client.get(&format!("/v2/kept/safe/blobs/{}", digest(&kept))).body == kept);
    let outside: Vec<_> = std::fs::read_dir(registry.setting.path().join("registry")).unwrap().collect();
    let mut names: Vec<String> =
        outside.into_iter().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected = ["blobs", "control.sock", "registry.lock", "repositories", "tmp", "token.key", "uploads"];
    assert_eq!(names, expected);
    let ended = registry.setting.run(&["registry", "scrub", "--data-dir", "registry"]);
    assert_eq!(ended.code, Some(0), "{}", ended.out);
    registry.host.stop();
}

#[test]
fn a_stop_lets_an_upload_finish() {
    let registry = Registry::start();
    let client = registry.client();
    let blob = noise(3, 2 << 20);
    let upload = client.begin("a");
    let mut stream = crate::support::http::Client::connect(client.addr);
    let head = format!(
        "PUT {upload}?digest={} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        digest(&blob),
        blob.len()
    );
    stream.write(head.as_bytes()).unwrap();
    stream.write(&blob[..1 << 20]).unwrap();
    // It is under way when what came of it is on the disk.
    eventually("the upload to be under way", || {
        let answer = client.get(&upload);
        (answer.header("range") != Some("0-0")).then_some(())
    });
    registry.host.signal(libc::SIGTERM);
    eventually("no new connections", || TcpStream::connect(client.addr).is_err().then_some(()));
    stream.write(&blob[1 << 20..]).unwrap();
    let answer = stream.response("PUT").unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    let Registry { mut host, setting, .. } = registry;
    assert_eq!(host.wait().code(), Some(0));
    let host = setting.registry(&[]);
    let again = Client { addr: host.addr, authorization: None };
    assert!(again.get(&format!("/v2/a/blobs/{}", digest(&blob))).body == blob);
}
