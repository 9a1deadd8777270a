//! Every host function with places that are not in memory.

use crate::calls::{FUNCTIONS, module, record};
use crate::support::{Hosted, request};

/// Text of the guest's memory that is a property, and a place to write to.
const TEXT: [u32; 2] = [1024, 11];
const OUT: u32 = 2048;

/// The ABI's code for such places.
const INVALID_MEMORY_ACCESS: u32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn places_outside_of_memory_have_their_code() {
    let hosted = Hosted::one(&module()).await;
    let mut checked = 0;
    for (which, (name, shape)) in FUNCTIONS.iter().enumerate() {
        for (position, kind) in shape.chars().enumerate() {
            let bad: &[[u32; 2]] = match kind {
                'p' => &[
                    [u32::MAX, 1],
                    [0, u32::MAX],
                    [0x8000_0000, 0x8000_0000],
                    [(4 << 16) - 1, 2],
                    [4 << 16, 1],
                ],
                'o' | 'e' => &[[u32::MAX, 0], [(4 << 16) - 3, 0], [4 << 16, 0], [0x8000_0000, 0]],
                'g' => &[[u32::MAX, OUT], [OUT, u32::MAX], [(4 << 16) - 3, OUT], [OUT, (4 << 16) - 3]],
                _ => &[],
            };
            for bad in bad {
                let mut args = Vec::new();
                for (index, kind) in shape.chars().enumerate() {
                    let good = match kind {
                        'p' => TEXT,
                        'g' => [OUT, OUT + 8],
                        'o' | 'e' => [OUT + 16, 0],
                        _ => [0, 0],
                    };
                    let chosen = if index == position { *bad } else { good };
                    let numbers = if matches!(kind, 'p' | 'g' | 'l') { 2 } else { 1 };
                    args.extend_from_slice(&chosen[..numbers]);
                }
                let reply = hosted.send("a", request("/", &record(which as u32, &args))).await.unwrap();
                let body = reply.into_body().collect(1 << 20).await.unwrap();
                let code = u32::from_le_bytes(body[..4].try_into().unwrap());
                // A result that is not there needs no place.
                let found_nothing = kind == 'g' && [1, 10].contains(&code) || kind == 'e' && code == 1;
                assert!(code == INVALID_MEMORY_ACCESS || found_nothing, "{name}{args:?}: {code}");
                checked += 1;
            }
        }
    }
    assert!(checked > 300, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_handed_over_as_address_and_length_0_and_places_may_overlap() {
    let hosted = Hosted::one(&module()).await;
    let get_buffer = FUNCTIONS.iter().position(|(name, _)| *name == "proxy_get_buffer_bytes").unwrap() as u32;
    for (args, code) in [
        ([0, 0, 0, OUT, OUT + 4], 0),
        ([0, 0, 100, OUT, OUT], 0),
        ([0, u32::MAX, 1, OUT, OUT + 4], 1),
        ([2, 0, 1, OUT, OUT + 4], 1),
        ([4, 0, 1, OUT, OUT + 4], 1),
        ([9, 0, 1, OUT, OUT + 4], 2),
        ([u32::MAX, 0, 1, OUT, OUT + 4], 2),
    ] {
        let reply = hosted.send("a", request("/", &record(get_buffer, &args))).await.unwrap();
        let body = reply.into_body().collect(100).await.unwrap();
        assert_eq!(body[..], u32::to_le_bytes(code), "{args:?}");
    }
}
