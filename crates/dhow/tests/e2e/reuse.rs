//! Instances serve one request, unless they are told to serve more.

use crate::support::{Setting, guest};

#[test]
fn instances_live_as_long_as_they_are_told() {
    let setting = Setting::new();
    type Steps<'a> = &'a [(&'a str, &'a str)];
    // Flags, paths and what is answered, in order.
    let cases: [(&[&str], Steps<'_>); 3] = [
        (&[], &[("/", "1"), ("/", "1"), ("/", "1")]),
        (
            &["--reuse", "3"],
            &[("/", "1"), ("/", "2"), ("/", "3"), ("/", "1"), ("/", "2"), ("/", "3"), ("/", "1")],
        ),
        (
            &["--reuse", "3"],
            &[
                ("/", "1"),
                ("/trap", "unreachable"),
                ("/", "1"),
                ("/", "2"),
                ("/trap", "unreachable"),
                ("/", "1"),
            ],
        ),
    ];
    for (flags, steps) in cases {
        let host = setting.serve(&guest("http-counter"), flags);
        let mut client = host.client();
        for (number, (path, expected)) in steps.iter().enumerate() {
            let answer = client.send("GET", path, &[], b"");
            let expected_status = if *path == "/trap" { 500 } else { 200 };
            assert_eq!(answer.status, expected_status, "{flags:?}, step {number}: {}", answer.text());
            assert!(answer.text().contains(expected), "{flags:?}, step {number}: {}", answer.text());
        }
        host.stop();
    }
}
