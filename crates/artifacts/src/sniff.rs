//! What a file is, by its first bytes: the compiler's own message about a web page would help nobody.

use std::fmt;

/// What the first bytes of a file look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A core module in binary form.
    Module,
    /// A component in binary form.
    Component,
    /// WebAssembly text: `(module` or `(component`.
    Text,
    /// The binary magic number with a version that is neither module nor component.
    UnknownWasm,
    /// No bytes at all.
    Empty,
    /// A web page.
    Html,
    /// XML.
    Xml,
    /// JSON.
    Json,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// A zip archive.
    Zip,
    /// A tar archive.
    Tar,
    /// A program or library of Linux and other systems.
    Elf,
    /// A program or library of macOS.
    MachO,
    /// A program or library of Windows.
    Exe,
    /// A script with its interpreter in the first line.
    Script,
    /// LLVM bitcode, an intermediate product of a compiler.
    Bitcode,
    /// A static library or other `ar` archive.
    Archive,
    /// Some other text.
    OtherText,
    /// Nothing known.
    Unknown,
}

/// Looks at the first bytes of a file. More than the first kilobyte changes nothing, except for WebAssembly
/// text behind long comments.
pub fn sniff(bytes: &[u8]) -> FileKind {
    if let Some(version) = bytes.strip_prefix(b"\0asm") {
        // Core specification, "Modules": version 1; component model, "Binary": version 0xd, layer 1.
        return match version.get(..4) {
            Some([1, 0, 0, 0]) => FileKind::Module,
            Some([_, _, 1, 0]) => FileKind::Component,
            _ => FileKind::UnknownWasm,
        };
    }
    let magics: &[(&[u8], FileKind)] = &[
        (b"\x1f\x8b", FileKind::Gzip),
        (b"\x28\xb5\x2f\xfd", FileKind::Zstd),
        (b"PK\x03\x04", FileKind::Zip),
        (b"\x7fELF", FileKind::Elf),
        (b"\xcf\xfa\xed\xfe", FileKind::MachO),
        (b"\xca\xfe\xba\xbe", FileKind::MachO),
        (b"MZ", FileKind::Exe),
        (b"#!", FileKind::Script),
        (b"BC\xc0\xde", FileKind::Bitcode),
        (b"!<arch>\n", FileKind::Archive),
    ];
    if bytes.is_empty() {
        return FileKind::Empty;
    }
    if let Some((_, kind)) = magics.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return *kind;
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return FileKind::Tar;
    }
    text_kind(bytes)
}

fn text_kind(bytes: &[u8]) -> FileKind {
    let text = after_blanks_and_comments(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let begins =
        |word: &str| text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word.as_bytes()));
    if let Some(inside) = text.strip_prefix(b"(") {
        let inside = after_blanks_and_comments(inside);
        let is_word = |word: &[u8]| {
            inside.strip_prefix(word).is_some_and(|rest| !rest.first().is_some_and(u8::is_ascii_alphanumeric))
        };
        if is_word(b"module") || is_word(b"component") {
            return FileKind::Text;
        }
    }
    let sample = &bytes[..bytes.len().min(1024)];
    match text.first() {
        _ if begins("<!doctype html") || begins("<html") => FileKind::Html,
        Some(b'<') => FileKind::Xml,
        Some(b'{' | b'[') if is_text(sample) => FileKind::Json,
        _ if is_text(sample) => FileKind::OtherText,
        _ => FileKind::Unknown,
    }
}

/// Skips blanks and the comments of WebAssembly text: `;; …` to the end of the line and nesting `(; … ;)`.
fn after_blanks_and_comments(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_start();
        if text.starts_with(b";;") {
            let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
            text = &text[end..];
        } else if text.starts_with(b"(;") {
            let mut depth = 0_usize;
            let mut at = 0;
            loop {
                match text.get(at..at + 2) {
                    None => return &[],
                    Some(b"(;") => (depth, at) = (depth + 1, at + 2),
                    Some(b";)") => (depth, at) = (depth - 1, at + 2),
                    Some(_) => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            text = &text[at..];
        } else {
            return text;
        }
    }
}

/// Whether a sample is UTF-8 without NUL. A character that is cut off at the sample's end is no sign against it.
fn is_text(sample: &[u8]) -> bool {
    !sample.contains(&0)
        && std::str::from_utf8(sample).map_or_else(|error| error.error_len().is_none(), |_| true)
}

// === impl FileKind ===

impl FileKind {
    /// Whether a compiler can be given this.
    pub fn is_wasm(self) -> bool {
        matches!(self, FileKind::Module | FileKind::Component | FileKind::Text)
    }

    /// What to do about a file of this kind, when it is not WebAssembly.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            FileKind::Html => "the URL probably names a page about the file: use the download link",
            FileKind::Gzip | FileKind::Zstd | FileKind::Zip | FileKind::Tar => "unpack it first",
            FileKind::Elf | FileKind::MachO | FileKind::Exe => {
                "build the program for WebAssembly, e.g. with --target wasm32-wasip2"
            }
            FileKind::Script | FileKind::OtherText | FileKind::Bitcode | FileKind::Archive => {
                "name the .wasm file that the compiler makes"
            }
            FileKind::Empty => "check whether its build or download failed",
            FileKind::UnknownWasm => "it was made for another version of WebAssembly, or it is damaged",
            _ => "name a .wasm or .wat file",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Module => "a WebAssembly module",
            FileKind::Component => "a WebAssembly component",
            FileKind::Text => "WebAssembly text",
            FileKind::UnknownWasm => "WebAssembly of an unknown version",
            FileKind::Empty => "an empty file",
            FileKind::Html => "an HTML page",
            FileKind::Xml => "XML",
            FileKind::Json => "JSON",
            FileKind::Gzip => "a gzip file",
            FileKind::Zstd => "a Zstandard file",
            FileKind::Zip => "a zip archive",
            FileKind::Tar => "a tar archive",
            FileKind::Elf => "an ELF program or library",
            FileKind::MachO => "a macOS program or library",
            FileKind::Exe => "a Windows program or library",
            FileKind::Script => "a script",
            FileKind::Bitcode => "LLVM bitcode",
            FileKind::Archive => "a static library",
            FileKind::OtherText => "plain text",
            FileKind::Unknown => "an unknown kind of file",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{FileKind, sniff};

    #[test]
    fn kinds_are_told_by_the_first_bytes() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let cases: &[(&[u8], FileKind)] = &[
            (b"\0asm\x01\0\0\0", FileKind::Module),
            (b"\0asm\x0d\0\x01\0more", FileKind::Component),
            (b"\0asm\x02\0\0\0", FileKind::UnknownWasm),
            (b"\0asm", FileKind::UnknownWasm),
            (b"(module)", FileKind::Text),
            (b" ;; hi\n(; a (; nested ;) ;) ( module $x)", FileKind::Text),
            (b"\xef\xbb\xbf(component\n)", FileKind::Text),
            (b"(modules)", FileKind::OtherText),
            (b"(; never closed", FileKind::OtherText),
            (b"(;)", FileKind::OtherText),
            (b"", FileKind::Empty),
            (b"\n<!DOCTYPE html><html>", FileKind::Html),
            (b"<HTML>", FileKind::Html),
            (b"<?xml version='1.0'?>", FileKind::Xml),
            (b"{\"a\": 1}", FileKind::Json),
            (b"\x1f\x8b\x08", FileKind::Gzip),
            (b"PK\x03\x04", FileKind::Zip),
            (b"\x7fELF\x02", FileKind::Elf),
            (b"MZ\x90", FileKind::Exe),
            (b"#!/bin/sh\n", FileKind::Script),
            (b"fn main() {}", FileKind::OtherText),
            (b"\xff\xfe\0", FileKind::Unknown),
            (&tar, FileKind::Tar),
        ];
        for (bytes, kind) in cases {
            assert_eq!(sniff(bytes), *kind, "{:?}", bytes.escape_ascii().to_string());
        }
        let cut = format!("{}é", "x".repeat(1023));
        assert_eq!(sniff(cut.as_bytes()), FileKind::OtherText);
    }
}
