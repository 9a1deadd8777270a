//! A guest that calls any host function with any arguments, as a request body tells it.
//!
//! The body is a list of records of sixteen numbers: which function, and its arguments. The answer is the list of what
//! the functions returned. `fuzz/fuzz_targets/proxy_wasm.rs` uses the same guest.

use std::fmt::Write;

/// Names and parameters: `p` address and length, `o` address of four bytes, `e` of eight, `g` two addresses of four
/// bytes each, `n` a number, `l` a number of eight bytes.
pub(crate) const FUNCTIONS: [(&str, &str); 64] = [
    ("proxy_log", "np"),
    ("proxy_get_log_level", "o"),
    ("proxy_get_current_time_nanoseconds", "e"),
    ("proxy_set_tick_period_milliseconds", "n"),
    ("proxy_set_effective_context", "n"),
    ("proxy_done", ""),
    ("proxy_call_foreign_function", "ppg"),
    ("proxy_get_buffer_bytes", "nnng"),
    ("proxy_set_buffer_bytes", "nnnp"),
    ("proxy_get_buffer_status", "noo"),
    ("proxy_get_status", "og"),
    ("proxy_continue_stream", "n"),
    ("proxy_continue_request", ""),
    ("proxy_continue_response", ""),
    ("proxy_resume_http_request", ""),
    ("proxy_resume_http_response", ""),
    ("proxy_resume_downstream", ""),
    ("proxy_resume_upstream", ""),
    ("proxy_clear_route_cache", ""),
    ("proxy_close_stream", "n"),
    ("proxy_send_local_response", "npppn"),
    ("proxy_send_http_response", "npppn"),
    ("proxy_get_header_map_size", "no"),
    ("proxy_get_header_map_pairs", "ng"),
    ("proxy_set_header_map_pairs", "np"),
    ("proxy_get_header_map_value", "npg"),
    ("proxy_add_header_map_value", "npp"),
    ("proxy_replace_header_map_value", "npp"),
    ("proxy_remove_header_map_value", "np"),
    ("proxy_http_call", "ppppno"),
    ("proxy_dispatch_http_call", "ppppno"),
    ("proxy_grpc_call", "pppppno"),
    ("proxy_dispatch_grpc_call", "pppppno"),
    ("proxy_grpc_stream", "ppppo"),
    ("proxy_open_grpc_stream", "ppppo"),
    ("proxy_grpc_send", "npn"),
    ("proxy_send_grpc_call_message", "npn"),
    ("proxy_grpc_cancel", "n"),
    ("proxy_grpc_close", "n"),
    ("proxy_cancel_grpc_call", "n"),
    ("proxy_close_grpc_call", "n"),
    ("proxy_get_shared_data", "pgo"),
    ("proxy_set_shared_data", "ppn"),
    ("proxy_register_shared_queue", "po"),
    ("proxy_resolve_shared_queue", "ppo"),
    ("proxy_enqueue_shared_queue", "np"),
    ("proxy_dequeue_shared_queue", "ng"),
    ("proxy_remove_shared_queue", "n"),
    ("proxy_define_metric", "npo"),
    ("proxy_record_metric", "nl"),
    ("proxy_increment_metric", "nl"),
    ("proxy_get_metric", "ne"),
    ("proxy_remove_metric", "n"),
    ("proxy_get_property", "pg"),
    ("proxy_set_property", "pp"),
    ("proxy_get_state", "ppg"),
    ("proxy_set_state", "ppp"),
    ("proxy_delete_state", "pp"),
    ("proxy_invoke_service", "pppg"),
    ("proxy_publish", "pppp"),
    ("proxy_get_secret", "ppg"),
    ("proxy_get_configuration", "ppg"),
    ("proxy_try_lock", "pppno"),
    ("proxy_unlock", "pppo"),
];

/// Numbers of a record.
pub(crate) const RECORD: usize = 16;

/// Where the guest allocates: behind its records, and below the end of its four pages.
const HEAP: u32 = 128 << 10;

/// The guest, in text form.
pub(crate) fn module() -> String {
    let (mut imports, mut steps) = (String::new(), String::new());
    for (index, (name, shape)) in FUNCTIONS.iter().enumerate() {
        let (mut params, mut args, mut at) = (String::new(), String::new(), 4);
        for kind in shape.chars() {
            let numbers = match kind {
                'p' | 'g' => 2,
                _ => 1,
            };
            if kind == 'l' {
                params.push_str(" i64");
                write!(args, " (i64.load offset={at} (local.get $at))").unwrap();
                at += 8;
                continue;
            }
            for _ in 0..numbers {
                params.push_str(" i32");
                write!(args, " (i32.load offset={at} (local.get $at))").unwrap();
                at += 4;
            }
        }
        writeln!(imports, r#"(import "env" "{name}" (func $f{index} (param{params}) (result i32)))"#)
            .unwrap();
        writeln!(
            steps,
            "(if (i32.eq (local.get $which) (i32.const {index})) (then (local.set $code (call $f{index}{args}))))"
        )
        .unwrap();
    }
    let (count, record) = (FUNCTIONS.len(), RECORD * 4);
    format!(
        r#"(module {imports}
        (memory (export "memory") 4)
        (global $top (mut i32) (i32.const {HEAP}))
        (data (i32.const 1024) "plugin_name")
        ;; Small pieces, round and round.
        (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
            (if (i32.gt_u (local.get $size) (i32.const 65536)) (then (return (i32.const 0))))
            (if (i32.gt_u (global.get $top) (i32.const {limit})) (then (global.set $top (i32.const {HEAP}))))
            (global.get $top)
            (global.set $top (i32.add (global.get $top) (local.get $size))))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (local $at i32) (local $end i32) (local $which i32) (local $code i32)
            (drop (call $f7 (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 8) (i32.const 12)))
            (local.set $at (i32.load (i32.const 8)))
            (local.set $end (i32.add (local.get $at) (i32.load (i32.const 12))))
            (drop (call $f8 (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 0)))
            (block $out (loop $next
                (br_if $out (i32.gt_u (i32.add (local.get $at) (i32.const {record})) (local.get $end)))
                (local.set $which (i32.rem_u (i32.load (local.get $at)) (i32.const {count})))
                {steps}
                (if (i32.gt_u (local.get $code) (i32.const 12)) (then unreachable))
                (i32.store (i32.const 16) (local.get $code))
                (drop (call $f8 (i32.const 1) (i32.const -1) (i32.const 0) (i32.const 16) (i32.const 4)))
                (local.set $at (i32.add (local.get $at) (i32.const {record})))
                (br $next)))
            (i32.const 0)))"#,
        limit = (4 << 16) - (64 << 10) - 1,
    )
}

/// A record as it stands in a body.
pub(crate) fn record(which: u32, args: &[u32]) -> Vec<u8> {
    let mut numbers = vec![which];
    numbers.extend_from_slice(args);
    numbers.resize(RECORD, 0);
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::{FUNCTIONS, RECORD, module, record};
    use crate::support::{Hosted, request};

    /// A generator with a fixed seed (splitmix64), so that a failure can be seen again.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32) as u32
        }

        /// Numbers that are mistaken for others: ends of memory, signs, small ones.
        fn number(&mut self) -> u32 {
            const LIKELY: [u32; 14] = [
                0,
                1,
                2,
                4,
                8,
                16,
                1024,
                4 << 16,
                (4 << 16) - 1,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_0000,
                u32::MAX - 3,
                u32::MAX,
            ];
            match self.next() % 4 {
                0 => self.next(),
                1 => self.next() % (5 << 16),
                2 => self.next() % 64,
                _ => LIKELY[self.next() as usize % LIKELY.len()],
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_arguments_hurt_the_host() {
        let hosted = Hosted::one(&module()).await;
        let mut random = Random(20_261_121);
        for _ in 0..400 {
            let mut body = Vec::new();
            for _ in 0..1 + random.next() as usize % 24 {
                let which = random.next() % FUNCTIONS.len() as u32;
                let args: Vec<u32> = (1..RECORD).map(|_| random.number()).collect();
                body.extend(record(which, &args));
            }
            // Any answer is fine, and any end of the guest; the host goes on.
            let _ = hosted.ask("a", request("/", &body)).await;
        }
        let (status, _) = hosted.ask("a", request("/", &record(1, &[64]))).await;
        assert_eq!(status, 200);
    }
}
