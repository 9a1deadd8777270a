//! A module that calls any host function with any arguments, as the payload of its operation tells it.
//!
//! The payload is a list of records of nine numbers: which function, and its arguments. The answer is the list of what
//! the functions returned. `fuzz/fuzz_targets/wapc.rs` uses the same module.

use std::fmt::Write;

/// The operation, which has to be open in the app's configuration.
pub(crate) const OPERATION: &str = "calls";

/// Names and parameters: `p` address and length, `a` an address alone. The second is whether there is a result.
pub(crate) const FUNCTIONS: [(&str, &str, bool); 9] = [
    ("__host_call", "pppp", true),
    ("__console_log", "p", false),
    ("__guest_request", "aa", false),
    ("__guest_response", "p", false),
    ("__guest_error", "p", false),
    ("__host_response", "a", false),
    ("__host_response_len", "", true),
    ("__host_error", "a", false),
    ("__host_error_len", "", true),
];

/// Numbers of a record.
pub(crate) const RECORD: usize = 9;

/// Pages of the module's memory.
pub(crate) const PAGES: u32 = 4;

/// Texts in the module's memory: a capability, operations, and payloads for them.
pub(crate) const TEXTS: [(u32, &str); 8] = [
    (196_608, "wascc:keyvalue"),
    (196_640, "Get"),
    (196_656, "Push"),
    (196_672, "default"),
    (196_688, "\u{82}\u{a3}key\u{a1}k\u{a5}value\u{a1}v"),
    (196_720, "wascc:logging"),
    (196_736, "WriteLog"),
    (196_752, "wascc:keyvalue!Get"),
];

/// The module, in text form.
pub(crate) fn module() -> String {
    let (mut imports, mut steps, mut data) = (String::new(), String::new(), String::new());
    for (index, (name, shape, answers)) in FUNCTIONS.iter().enumerate() {
        let (mut params, mut args, mut at) = (String::new(), String::new(), 4);
        for kind in shape.chars() {
            for _ in 0..if kind == 'p' { 2 } else { 1 } {
                params.push_str(" i32");
                write!(args, " (i32.load offset={at} (local.get $at))").unwrap();
                at += 4;
            }
        }
        let result = if *answers { "(result i32)" } else { "" };
        writeln!(imports, r#"(import "wapc" "{name}" (func $f{index} (param{params}) {result}))"#).unwrap();
        let call = format!("(call $f{index}{args})");
        let step = if *answers { format!("(local.set $code {call})") } else { call };
        writeln!(steps, "(if (i32.eq (local.get $which) (i32.const {index})) (then {step}))").unwrap();
    }
    for (at, text) in TEXTS {
        // Each character is a byte.
        let bytes: String = text.chars().map(|byte| format!("\\{:02x}", byte as u32)).collect();
        writeln!(data, "(data (i32.const {at}) \"{bytes}\")").unwrap();
    }
    let (count, record) = (FUNCTIONS.len(), RECORD * 4);
    format!(
        r#"(module {imports}
        (memory (export "memory") {PAGES})
        {data}
        (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
            (local $at i32) (local $end i32) (local $which i32) (local $code i32) (local $out i32)
            (if (i32.gt_u (local.get $payload) (i32.const 65536)) (then (return (i32.const 0))))
            (call $f2 (i32.const 512) (i32.const 1024))
            (local.set $at (i32.const 1024))
            (local.set $end (i32.add (i32.const 1024) (local.get $payload)))
            (local.set $out (i32.const 131072))
            (block $out_of (loop $next
                (br_if $out_of (i32.gt_u (i32.add (local.get $at) (i32.const {record})) (local.get $end)))
                (local.set $which (i32.rem_u (i32.load (local.get $at)) (i32.const {count})))
                (local.set $code (i32.const -1))
                {steps}
                (i32.store (local.get $out) (local.get $code))
                (local.set $out (i32.add (local.get $out) (i32.const 4)))
                (local.set $at (i32.add (local.get $at) (i32.const {record})))
                (br $next)))
            (call $f3 (i32.const 131072) (i32.sub (local.get $out) (i32.const 131072)))
            (i32.const 1)))"#
    )
}

/// A record as it stands in a payload.
pub(crate) fn record(which: u32, args: &[u32]) -> Vec<u8> {
    let mut numbers = vec![which];
    numbers.extend_from_slice(args);
    numbers.resize(RECORD, 0);
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::{FUNCTIONS, OPERATION, PAGES, RECORD, TEXTS, module, record};
    use crate::support::Hosted;
    use dhow_blocks::grants::NamePattern;
    use dhow_blocks::invoke::Body;
    use http::Request;

    const END: u32 = PAGES << 16;

    /// A text of the module's memory, as address and length.
    fn text(index: usize) -> [u32; 2] {
        let (at, text) = TEXTS[index];
        [at, u32::try_from(text.chars().count()).unwrap()]
    }

    /// `Push` of the key-value store, by places.
    fn push() -> [u32; 8] {
        let [binding, namespace, operation, payload] = [text(3), text(0), text(2), text(4)];
        let list = [binding, namespace, operation, payload].concat();
        list.try_into().unwrap()
    }

    async fn hosted() -> Hosted {
        let hosted = Hosted::new();
        let mut spec = hosted.spec("a", &module());
        spec.config.insert("operations".to_owned(), OPERATION.to_owned());
        spec.grants.state = vec![NamePattern::any()];
        hosted.run(vec![spec]).await.unwrap();
        hosted
    }

    async fn ask(hosted: &Hosted, records: &[u8]) -> Result<Vec<i32>, String> {
        let request = Request::post(format!("/{OPERATION}")).body(Body::from(records.to_vec())).unwrap();
        let reply = hosted.send("a", request).await.map_err(|error| error.to_string())?;
        let status = reply.status();
        let body = reply.into_body().collect(1 << 20).await.unwrap();
        assert!(status.is_success(), "{}", String::from_utf8_lossy(&body));
        Ok(body.chunks_exact(4).map(|code| i32::from_le_bytes(code.try_into().unwrap())).collect())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_host_call_with_places_outside_of_memory_is_an_error_of_the_call() {
        let hosted = hosted().await;
        let host_call = |args: [u32; 8]| [record(0, &args), record(6, &[]), record(8, &[])].concat();
        let good = ask(&hosted, &host_call(push())).await.unwrap();
        assert!(good[0] == 1 && good[1] > 0 && good[2] == 0, "{good:?}");
        let bad = [
            [END, 1],
            [END - 1, 2],
            [u32::MAX, 1],
            [0, u32::MAX],
            [0x8000_0000, 0x8000_0000],
            [0, 0x8000_0000],
            [0, END + 1],
        ];
        for position in 0..4 {
            for [at, length] in bad {
                let mut args = push();
                args[position * 2] = at;
                args[position * 2 + 1] = length;
                let codes = ask(&hosted, &host_call(args)).await.unwrap();
                assert!(codes[0] == 0 && codes[1] == 0 && codes[2] > 0, "{args:?}: {codes:?}");
            }
        }
        // Places that overlap are fine, and nothing needs no place.
        let mut empty_binding = push();
        (empty_binding[0], empty_binding[1]) = (u32::MAX, 0);
        assert_eq!(ask(&hosted, &host_call(empty_binding)).await.unwrap()[0], 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_functions_end_the_call_and_nothing_else() {
        let hosted = hosted().await;
        let fills = [record(0, &push())].concat();
        for (which, (name, shape, answers)) in FUNCTIONS.iter().enumerate().skip(1) {
            let which = u32::try_from(which).unwrap();
            let bad: &[[u32; 2]] = match *shape {
                "p" => &[[END, 1], [END - 1, 2], [u32::MAX, 1], [1, u32::MAX], [0x8000_0000, 0x8000_0000]],
                "aa" => &[[END, 1024], [512, END], [u32::MAX, u32::MAX], [512, END - 20]],
                "a" => &[[END, 0], [u32::MAX, 0], [END - 1, 0], [0x8000_0000, 0]],
                _ => &[],
            };
            for bad in bad {
                // There has to be something to be written.
                let call = if *name == "__host_error" { record(0, &[0; 8]) } else { fills.clone() };
                let failed = ask(&hosted, &[call, record(which, bad)].concat()).await.unwrap_err();
                assert!(
                    failed.contains("not in the module's memory") || failed.contains("more than"),
                    "{name}{bad:?}: {failed}"
                );
            }
            if *answers {
                // Without a call there is nothing.
                assert_eq!(ask(&hosted, &record(which, &[])).await.unwrap(), [0], "{name}");
            }
        }
        // An answer that is not there needs no place.
        let nothing = [record(5, &[u32::MAX]), record(7, &[u32::MAX])].concat();
        assert_eq!(ask(&hosted, &nothing).await.unwrap(), [-1, -1]);
        assert_eq!(ask(&hosted, &record(0, &push())).await.unwrap(), [1]);
    }

    /// A generator with a fixed seed (splitmix64), so that a failure can be seen again.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32) as u32
        }

        /// Places of texts, ends of memory, signs, small numbers.
        fn args(&mut self) -> Vec<u32> {
            let mut args = Vec::new();
            while args.len() + 1 < RECORD {
                match self.next() % 4 {
                    0 => args.extend(text(self.next() as usize % TEXTS.len())),
                    1 => args.extend([self.next() % (END + 64), self.next() % 64]),
                    2 => args.extend([self.next(), self.next()]),
                    _ => args.extend([
                        [0, 1, END, END - 1, 0x7fff_ffff, 0x8000_0000, u32::MAX][self.next() as usize % 7],
                        [0, 1, 16, END, 0x8000_0000, u32::MAX][self.next() as usize % 6],
                    ]),
                }
            }
            args.truncate(RECORD - 1);
            args
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_arguments_hurt_the_host() {
        let hosted = hosted().await;
        let mut random = Random(20_261_121);
        for _ in 0..400 {
            let mut body = Vec::new();
            for _ in 0..1 + random.next() % 24 {
                // Mostly calls of the host, which do not end the module.
                let which = if random.next().is_multiple_of(2) { 0 } else { random.next() };
                body.extend(record(which, &random.args()));
            }
            // Any answer is fine, and any end of the module; the host goes on.
            let _ = ask(&hosted, &body).await;
        }
        assert_eq!(ask(&hosted, &record(0, &push())).await.unwrap(), [1]);
    }
}
