//! What S3 says and is told in XML. By hand, because servers leave out what rusty-s3 insists on, and because it has no
//! words for most of it. Elements are found by their names; S3 uses neither prefixes nor comments in answers.

use super::{time, unquoted, unreadable};
use dhow_blocks::blob::{Access, BlobError, Entries, Info, Owner, Part, Upload, Version};

const EVERYBODY: &str = "/groups/global/AllUsers";

const AUTHENTICATED: &str = "/groups/global/AuthenticatedUsers";

/// An answer as text.
pub(super) fn read<'a>(body: &'a [u8], what: &str) -> Result<&'a str, BlobError> {
    std::str::from_utf8(body).map_err(|_| unreadable(what))
}

/// What is in each element of that name, as it stands there.
pub(super) fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once(&open)?;
        let (content, behind) = behind.split_once(&close)?;
        rest = behind;
        Some(content)
    })
}

/// The text of the first element of that name.
pub(super) fn field(text: &str, name: &str) -> Option<String> {
    elements(text, name).next().map(unescaped)
}

/// A text as it may stand in an element.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\r' => escaped.push_str("&#13;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A text as it is meant; what is no reference to a character stays as it is.
fn unescaped(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, behind)) = rest.split_once('&') {
        plain.push_str(before);
        let reference = behind.split_once(';').and_then(|(name, behind)| Some((character(name)?, behind)));
        let (character, behind) = reference.unwrap_or(('&', behind));
        plain.push(character);
        rest = behind;
    }
    plain.push_str(rest);
    plain
}

fn character(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(number.ok()?)
        }
    }
}

fn owner(text: &str) -> Owner {
    let owner = elements(text, "Owner").next().unwrap_or_default();
    Owner {
        id: field(owner, "ID").unwrap_or_default(),
        name: field(owner, "DisplayName").unwrap_or_default(),
    }
}

/// The word for what an access list grants.
pub(super) fn access(list: &str) -> Option<Access> {
    let (mut read, mut write, mut authenticated, mut other) = (false, false, false, false);
    let owner = owner(list);
    for grant in elements(list, "Grant") {
        let permission = field(grant, "Permission")?;
        let group = field(grant, "URI").unwrap_or_default();
        match (permission.as_str(), group.as_str()) {
            ("READ", group) if group.ends_with(EVERYBODY) => read = true,
            ("WRITE", group) if group.ends_with(EVERYBODY) => write = true,
            ("READ", group) if group.ends_with(AUTHENTICATED) => authenticated = true,
            ("FULL_CONTROL", "") if field(grant, "ID").is_some_and(|id| id == owner.id) => {}
            _ => other = true,
        }
    }
    let canned = match (read, write, authenticated, other) {
        (false, false, false, false) => "private",
        (true, false, false, false) => "public-read",
        (true, true, false, false) => "public-read-write",
        (false, false, true, false) => "authenticated-read",
        _ => "",
    };
    Some(Access { canned: canned.to_owned(), owner })
}

/// A page of versions; deletions stand behind the versions of the page.
pub(super) fn versions(list: &str) -> Option<Entries<Version>> {
    let version = |text: &str, is_deletion: bool| {
        Some(Version {
            info: Info {
                key: field(text, "Key")?,
                size: field(text, "Size").and_then(|size| size.parse().ok()).unwrap_or(0),
                modified: field(text, "LastModified").as_deref().and_then(time),
                etag: unquoted(&field(text, "ETag").unwrap_or_default()),
                storage_class: field(text, "StorageClass").unwrap_or_default(),
                ..Info::default()
            },
            id: field(text, "VersionId").unwrap_or_default(),
            is_latest: field(text, "IsLatest").is_some_and(|text| text == "true"),
            is_deletion,
            owner: owner(text),
        })
    };
    let versions = elements(list, "Version").map(|text| version(text, false));
    let deletions = elements(list, "DeleteMarker").map(|text| version(text, true));
    let entries = versions.chain(deletions).collect::<Option<Vec<Version>>>()?;
    Some(Entries { entries, prefixes: prefixes(list), next: next(list, "NextVersionIdMarker") })
}

/// A page of uploads.
pub(super) fn uploads(list: &str) -> Option<Entries<Upload>> {
    let entries = elements(list, "Upload").map(|text| {
        Some(Upload {
            key: field(text, "Key")?,
            id: field(text, "UploadId")?,
            initiated: field(text, "Initiated").as_deref().and_then(time),
            owner: owner(text),
            storage_class: field(text, "StorageClass").unwrap_or_default(),
        })
    });
    let entries = entries.collect::<Option<Vec<Upload>>>()?;
    Some(Entries { entries, prefixes: prefixes(list), next: next(list, "NextUploadIdMarker") })
}

fn prefixes(list: &str) -> Vec<String> {
    elements(list, "CommonPrefixes").filter_map(|prefix| field(prefix, "Prefix")).collect()
}

fn next(list: &str, id_marker: &str) -> Option<(String, String)> {
    field(list, "IsTruncated").filter(|text| text == "true")?;
    Some((field(list, "NextKeyMarker")?, field(list, id_marker).unwrap_or_default()))
}

/// The parts in a list of them.
pub(super) fn parts(list: &[u8]) -> Option<Vec<Part>> {
    let parts = elements(std::str::from_utf8(list).ok()?, "Part").map(|part| {
        Some(Part {
            number: field(part, "PartNumber")?.parse().ok()?,
            etag: unquoted(&field(part, "ETag").unwrap_or_default()),
            size: field(part, "Size").and_then(|size| size.parse().ok()).unwrap_or(0),
            modified: field(part, "LastModified").as_deref().and_then(time),
        })
    });
    let mut parts = parts.collect::<Option<Vec<Part>>>()?;
    parts.sort_by_key(|part| part.number);
    Some(parts)
}

/// The parts of an upload, as S3 wants to be told.
pub(super) fn listed(parts: &[Part]) -> String {
    let parts = parts.iter().map(|Part { number, etag, .. }| {
        let etag = etag.replace(['<', '>', '&'], "");
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    });
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_they_are_meant() {
        for (xml, expected) in [
            ("<Key>a</Key>", Some("a")),
            ("<Key>a&amp;&lt;b&gt; &quot;&apos;&#39;&#x1F42A;</Key>", Some("a&<b> \"''🐪")),
            ("<Key>a & b &nope; &#xD800; &</Key>", Some("a & b &nope; &#xD800; &")),
            ("<Key></Key>", Some("")),
            ("<Key/>", None),
            ("<Key>", None),
        ] {
            assert_eq!(field(xml, "Key").as_deref(), expected, "{xml}");
        }
        let text = "a<b>&\"c\" &amp;";
        assert_eq!(unescaped(&escaped(text)), text);
    }

    #[test]
    fn access_lists_are_one_word_or_none() {
        let mine = "<Grant><Grantee><ID>me</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant>";
        let group = |name: &str, permission: &str| {
            format!(
                "<Grant><Grantee><URI>http://acs.amazonaws.com/groups/global/{name}</URI></Grantee>\
                 <Permission>{permission}</Permission></Grant>"
            )
        };
        for (grants, expected) in [
            (String::new(), "private"),
            (group("AllUsers", "READ"), "public-read"),
            (group("AllUsers", "READ") + &group("AllUsers", "WRITE"), "public-read-write"),
            (group("AuthenticatedUsers", "READ"), "authenticated-read"),
            (group("AllUsers", "WRITE"), ""),
            (group("AllUsers", "READ_ACP"), ""),
            (mine.replace("me", "you"), ""),
        ] {
            let list = format!("<Owner><ID>me</ID></Owner><List>{mine}{grants}</List>");
            assert_eq!(access(&list).unwrap().canned, expected, "{grants}");
        }
    }

    #[test]
    fn pages_say_where_they_go_on() {
        let list = "<IsTruncated>true</IsTruncated><NextKeyMarker>b</NextKeyMarker>\
                    <NextVersionIdMarker>7</NextVersionIdMarker>\
                    <Version><Key>a</Key><VersionId>1</VersionId><IsLatest>true</IsLatest><Size>5</Size>\
                    <ETag>&quot;e&quot;</ETag></Version>\
                    <DeleteMarker><Key>b</Key><VersionId>2</VersionId></DeleteMarker>\
                    <CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes>";
        let page = versions(list).unwrap();
        assert_eq!(
            (page.next, page.prefixes),
            (Some(("b".to_owned(), "7".to_owned())), vec!["c/".to_owned()])
        );
        let [version, deletion] = <[Version; 2]>::try_from(page.entries).unwrap();
        assert_eq!((version.id.as_str(), version.is_latest, version.is_deletion), ("1", true, false));
        assert_eq!((version.info.size, version.info.etag.as_str()), (5, "e"));
        assert!(deletion.is_deletion && !deletion.is_latest);
        assert!(versions("<Version></Version>").is_none() && uploads("<Upload></Upload>").is_none());
        assert_eq!(uploads("").unwrap(), Entries::default());
    }
}
