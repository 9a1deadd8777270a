//! The token in a module: a custom section at its end, and the hash of everything else.
//!
//! Facts: fact sheet of Wascap, "Where the token sits" and "Module hash". The hash is taken over the module without the
//! section. Tools of the first years took it over the module as their own library would have written it, those of
//! today over its sections, written anew; for what compilers write, all are the same bytes. A module that was encoded
//! in another way has two hashes here, and either one counts: both cover every byte that an engine reads.

use sha2::{Digest, Sha256};
use wasm_encoder::{ComponentSectionId, Encode, RawSection, Section};
use wasmparser::{Encoding, Parser, Payload};

/// Names of the section, the one that is written first.
const NAMES: [&str; 2] = ["wasmcloud_jwt", "jwt"];

/// A file that cannot hold a token.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SectionError {
    /// It is no module, or a broken one.
    #[error("structure: damaged WebAssembly at byte {offset}: {reason}")]
    Damaged {
        /// Where.
        offset: usize,
        /// What the parser said.
        reason: String,
    },
    /// There are several: nobody could tell which one counts.
    #[error("structure: the module has {0} tokens; it may have one")]
    Several(usize),
    /// What is in the section is no text.
    #[error("structure: the token's section is not text")]
    NotText,
}

/// The text of a module's token, if it has one.
pub fn token(wasm: &[u8]) -> Result<Option<&str>, SectionError> {
    let mut found = sections(wasm)?.into_iter().filter(Part::is_token);
    let Some(first) = found.next() else { return Ok(None) };
    let others = found.count();
    if others > 0 {
        return Err(SectionError::Several(others + 1));
    }
    let text = wasm.get(first.content..first.end).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.map(Some).ok_or(SectionError::NotText)
}

/// The module without its token.
pub fn strip(wasm: &[u8]) -> Result<Vec<u8>, SectionError> {
    let mut rest = Vec::with_capacity(wasm.len());
    let mut from = 0;
    for part in sections(wasm)?.iter().filter(|part| part.is_token()) {
        rest.extend_from_slice(&wasm[from..part.start]);
        from = part.end;
    }
    rest.extend_from_slice(&wasm[from..]);
    Ok(rest)
}

/// The module with this token and no other.
pub fn embed(wasm: &[u8], token: &str) -> Result<Vec<u8>, SectionError> {
    let mut signed = strip(wasm)?;
    let section = wasm_encoder::CustomSection { name: NAMES[0].into(), data: token.as_bytes().into() };
    section.append_to(&mut signed);
    Ok(signed)
}

/// The hash that a token is to name: over the sections, written anew.
pub fn hash(wasm: &[u8]) -> Result<String, SectionError> {
    Ok(hexadecimal(&rewritten(wasm)?))
}

/// All hashes that a token may name.
pub fn hashes(wasm: &[u8]) -> Result<[String; 2], SectionError> {
    Ok([hash(wasm)?, hexadecimal(&strip(wasm)?)])
}

/// A section of the outermost level, by its places in the file.
struct Part {
    start: usize,
    /// Of a custom section: behind its name.
    content: usize,
    end: usize,
    name: Option<String>,
}

// === impl Part ===

impl Part {
    fn is_token(&self) -> bool {
        self.name.as_deref().is_some_and(|name| NAMES.contains(&name))
    }
}

fn sections(wasm: &[u8]) -> Result<Vec<Part>, SectionError> {
    let mut parts = Vec::new();
    let mut depth = 0_u32;
    let mut before = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(damaged)?;
        if let Payload::Version { range, .. } = &payload
            && depth == 0
        {
            before = range.end;
        }
        // The parser takes the end of the file for that of a nested module, too: what is added behind would be in it.
        if let Some((_, range)) = payload.as_section()
            && range.end > wasm.len()
        {
            let reason = "a section goes beyond the end of the file".to_owned();
            return Err(SectionError::Damaged { offset: range.start, reason });
        }
        if let (0, Some((_, range))) = (depth, payload.as_section()) {
            let (name, content) = match &payload {
                Payload::CustomSection(section) => (Some(section.name().to_owned()), section.data_offset()),
                _ => (None, range.start),
            };
            parts.push(Part { start: before, content, end: range.end, name });
            before = range.end;
        }
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(parts)
}

/// The module as its sections, each with the shortest head, without tokens; also those of modules in it.
fn rewritten(wasm: &[u8]) -> Result<Vec<u8>, SectionError> {
    let mut output = Vec::with_capacity(wasm.len());
    let mut outer = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(damaged)?;
        match &payload {
            Payload::Version { encoding, .. } => output.extend_from_slice(match encoding {
                Encoding::Component => &wasm_encoder::Component::HEADER,
                Encoding::Module => &wasm_encoder::Module::HEADER,
            }),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                outer.push(std::mem::take(&mut output));
                continue;
            }
            Payload::End(_) => {
                let Some(mut parent) = outer.pop() else { break };
                let id = match output.starts_with(&wasm_encoder::Component::HEADER) {
                    true => ComponentSectionId::Component,
                    false => ComponentSectionId::CoreModule,
                };
                parent.push(id as u8);
                output.encode(&mut parent);
                output = parent;
                continue;
            }
            Payload::CustomSection(section) if NAMES.contains(&section.name()) => continue,
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            let data = wasm.get(range.clone()).ok_or(SectionError::Damaged {
                offset: range.start,
                reason: "the section ends behind the file".to_owned(),
            })?;
            RawSection { id, data }.append_to(&mut output);
        }
    }
    Ok(output)
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}

fn damaged(error: wasmparser::BinaryReaderError) -> SectionError {
    SectionError::Damaged { offset: error.offset(), reason: error.message().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module() -> Vec<u8> {
        wat::parse_str("(module (memory 1) (func (export \"f\") (result i32) i32.const 7))").unwrap()
    }

    fn component() -> Vec<u8> {
        wat::parse_str("(component (core module (func (export \"f\"))) (component (core module)))").unwrap()
    }

    fn custom(name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        wasm_encoder::CustomSection { name: name.into(), data: data.into() }.append_to(&mut bytes);
        bytes
    }

    #[test]
    fn a_token_comes_and_goes_without_a_trace() {
        for wasm in [module(), component()] {
            assert_eq!(token(&wasm).unwrap(), None);
            let signed = embed(&wasm, "a.b.c").unwrap();
            assert_eq!(token(&signed).unwrap(), Some("a.b.c"));
            assert_eq!(strip(&signed).unwrap(), wasm);
            assert_eq!(hashes(&signed).unwrap(), hashes(&wasm).unwrap());
            assert_eq!(
                hash(&wasm).unwrap(),
                hexadecimal(&wasm),
                "what compilers write is rewritten as it was"
            );
            let again = embed(&signed, "d.e.f").unwrap();
            assert_eq!((token(&again).unwrap(), strip(&again).unwrap()), (Some("d.e.f"), wasm));
        }
    }

    #[test]
    fn both_names_are_found_where_they_count() {
        let (old, new) = (custom("jwt", b"old"), custom("wasmcloud_jwt", b"new"));
        assert_eq!(token(&[module(), old.clone()].concat()).unwrap(), Some("old"));
        assert_eq!(token(&[component(), new.clone()].concat()).unwrap(), Some("new"));
        let both = [module(), old.clone(), custom("name", b""), new].concat();
        assert_eq!(token(&both), Err(SectionError::Several(2)));
        assert_eq!(strip(&both).unwrap(), [module(), custom("name", b"")].concat());
        assert_eq!(token(&[module(), custom("jwt", b"\xff")].concat()), Err(SectionError::NotText));
        // A module inside has a token of its own, which says nothing about the whole.
        let inner = [module(), old].concat();
        let mut outer = wasm_encoder::Component::new();
        outer.section(&wasm_encoder::RawSection { id: ComponentSectionId::CoreModule as u8, data: &inner });
        assert_eq!(token(&outer.finish()).unwrap(), None);
    }

    #[test]
    fn an_odd_encoding_has_two_hashes() {
        let mut wasm = module();
        let padding = custom("padding", b"x");
        wasm.extend_from_slice(&[0, 0x80 | (padding.len() as u8 - 2), 0]);
        wasm.extend_from_slice(&padding[2..]);
        let [rewritten, plain] = hashes(&wasm).unwrap();
        assert_eq!(plain, hexadecimal(&wasm));
        assert_eq!(rewritten, hexadecimal(&[module(), padding].concat()));
    }

    #[test]
    fn broken_files_are_errors() {
        let whole = embed(&component(), "a.b.c").unwrap();
        for length in 0..whole.len() {
            let cut = &whole[..length];
            // Cut at the end of a section it is a module.
            if let Err(error) = hashes(cut).and_then(|_| token(cut).map(drop)) {
                assert!(matches!(error, SectionError::Damaged { .. }), "{length}: {error}");
            }
        }
        // The parser takes this for whole: the file ends where a section of the module inside does.
        let mut open = vec![0, b'a', b's', b'm', 13, 0, 1, 0, 1, 0x7f];
        open.extend(module());
        assert!(matches!(token(&open), Err(SectionError::Damaged { .. })));
        for seed in 0..2000_u32 {
            let mut bytes = whole.clone();
            let place = (seed.wrapping_mul(2_654_435_761) >> 7) as usize % bytes.len();
            bytes[place] ^= (seed % 255 + 1) as u8;
            let _ = (hashes(&bytes), token(&bytes), strip(&bytes));
        }
    }
}
