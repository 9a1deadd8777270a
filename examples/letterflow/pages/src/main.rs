//! Letters in PDF: write, split into pages, stamp a page, join.
//!
//! ```text
//! pages write LETTERS.txt OUT.pdf        one page for each paragraph
//! pages split IN.pdf FOLDER              FOLDER/page-1.pdf, …; their names as a JSON list to standard output
//! pages stamp TEXT IN.pdf OUT.pdf        writes a line at the foot of a page
//! pages join FOLDER OUT.pdf              the pages of a folder, in the order of their numbers
//! ```

use lopdf::content::{Content, Operation};
use lopdf::{Dictionary, Document, Object, Stream, dictionary};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A4 in points.
const SIZE: [i64; 4] = [0, 0, 595, 842];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["write", letters, out] => write(Path::new(letters), out),
        ["split", pdf, folder] => split(pdf, Path::new(folder)),
        ["stamp", text, pdf, out] => stamp(text, pdf, out),
        ["join", folder, out] => join(Path::new(folder), out),
        _ => Err("expected write, split, stamp or join with their files".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(letters: &Path, out: &str) -> Result<()> {
    let text = fs::read_to_string(letters)?;
    let mut document = Document::with_version("1.5");
    let root = document.new_object_id();
    let resources = document.add_object(resources());
    let mut kids = Vec::new();
    for letter in text.split("\n\n").filter(|letter| !letter.trim().is_empty()) {
        let lines: Vec<&str> = letter.lines().collect();
        let content = document.add_object(Stream::new(Dictionary::new(), lines_at(72, 770, &lines)?));
        let page = dictionary! {
            "Type" => "Page", "Parent" => root, "Contents" => content, "Resources" => resources,
            "MediaBox" => SIZE.map(Object::from).to_vec(),
        };
        kids.push(document.add_object(page).into());
    }
    finish(document, root, kids, out)
}

fn split(pdf: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let document = Document::load_mem(&fs::read(pdf)?)?;
    let count = document.get_pages().len() as u32;
    let mut names = Vec::new();
    for page in 1..=count {
        let mut one = document.clone();
        let others: Vec<u32> = (1..=count).filter(|other| *other != page).collect();
        one.delete_pages(&others);
        one.prune_objects();
        let name = format!("page-{page}.pdf");
        save(one, &folder.join(&name).to_string_lossy())?;
        names.push(name);
    }
    println!("{}", serde_json::json!(names));
    Ok(())
}

fn stamp(text: &str, pdf: &str, out: &str) -> Result<()> {
    let mut document = Document::load_mem(&fs::read(pdf)?)?;
    let pages: Vec<_> = document.get_pages().into_values().collect();
    for page in pages {
        let mut content = document.get_page_content(page)?;
        content.push(b'\n');
        content.extend(lines_at(72, 40, &[text])?);
        document.change_page_content(page, content)?;
    }
    save(document, out)
}

fn join(folder: &Path, out: &str) -> Result<()> {
    let mut files: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let number: String = name.chars().filter(char::is_ascii_digit).collect();
        files.push((number.parse()?, path));
    }
    files.sort();
    let mut whole = Document::with_version("1.5");
    let mut kids = Vec::new();
    let mut objects = BTreeMap::new();
    let mut next = 1;
    for (_, file) in files {
        let mut part = Document::load_mem(&fs::read(file)?)?;
        part.renumber_objects_with(next);
        next = part.max_id + 1;
        kids.extend(part.get_pages().into_values().map(Object::from));
        objects.extend(part.objects);
    }
    whole.max_id = next;
    let root = whole.new_object_id();
    for (id, object) in objects {
        let kind = object.as_dict().ok().and_then(|dict| dict.get(b"Type").and_then(Object::as_name).ok());
        match kind {
            Some(b"Catalog" | b"Pages") => {}
            Some(b"Page") => {
                let mut page = object.as_dict()?.clone();
                page.set("Parent", root);
                whole.objects.insert(id, page.into());
            }
            _ => {
                whole.objects.insert(id, object);
            }
        }
    }
    finish(whole, root, kids, out)
}

/// Text at a place, line under line.
fn lines_at(x: i64, y: i64, lines: &[&str]) -> Result<Vec<u8>> {
    let mut operations = vec![
        Operation::new("BT", vec![]),
        Operation::new("Tf", vec!["F1".into(), 12.into()]),
        Operation::new("TL", vec![16.into()]),
        Operation::new("Td", vec![x.into(), y.into()]),
    ];
    for line in lines {
        operations.push(Operation::new("Tj", vec![Object::string_literal(*line)]));
        operations.push(Operation::new("T*", vec![]));
    }
    operations.push(Operation::new("ET", vec![]));
    Ok(Content { operations }.encode()?)
}

fn resources() -> Dictionary {
    let font = dictionary! { "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Helvetica" };
    dictionary! { "Font" => dictionary! { "F1" => font } }
}

fn finish(mut document: Document, root: lopdf::ObjectId, kids: Vec<Object>, out: &str) -> Result<()> {
    let count = i64::try_from(kids.len())?;
    let pages = dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count };
    document.objects.insert(root, pages.into());
    let catalog = document.add_object(dictionary! { "Type" => "Catalog", "Pages" => root });
    document.trailer.set("Root", catalog);
    save(document, out)
}

fn save(mut document: Document, out: &str) -> Result<()> {
    let mut bytes = Vec::new();
    document.save_to(&mut bytes)?;
    fs::write(out, bytes)?;
    Ok(())
}
