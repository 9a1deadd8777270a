//! The page for people: modules with their claims and interfaces. Everything on it that somebody pushed is escaped, and
//! it needs nothing from elsewhere.

use super::route::escape;
use crate::registry::search::{Found, FoundModule, Query};
use std::fmt;

/// What is on the page.
pub(super) struct Page<'a> {
    /// How the client reaches the registry.
    pub(super) url: &'a str,
    pub(super) query: &'a Query,
    /// What is wrong with the question.
    pub(super) mistake: Option<&'a str>,
    pub(super) found: &'a Found,
    /// Blobs that are known to be damaged.
    pub(super) damaged: usize,
    pub(super) user: Option<&'a str>,
}

/// Text in HTML, also inside quotes.
struct Escaped<'a>(&'a str);

pub(super) const STYLE: &str = "\
:root { color-scheme: light dark; --line: #d5dae0; --faint: #5c6773; --card: #ffffff; --back: #f4f6f8;
  --text: #17212b; --link: #0b5cad; --good: #14663a; --good-back: #dcf3e4; --bad: #8f1d1d; --bad-back: #fbe2e2;
  --plain-back: #e8ebef; }
@media (prefers-color-scheme: dark) { :root { --line: #36414d; --faint: #a2adb9; --card: #1b232c; --back: #12181f;
  --text: #e6ebf0; --link: #79b8ff; --good: #8fe0ae; --good-back: #173a27; --bad: #ffb1b1; --bad-back: #4a1d1d;
  --plain-back: #2a343f; } }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; background: var(--back); color: var(--text); }
main, header > div { max-width: 60rem; margin: 0 auto; padding: 0 1rem; }
header { background: var(--card); border-bottom: 1px solid var(--line); }
header > div { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: center; padding: .8rem 1rem; }
h1 { font-size: 1.15rem; margin: 0; } h1 a { color: inherit; text-decoration: none; }
form { display: flex; flex: 1 1 18rem; gap: .5rem; }
input { flex: 1; min-width: 0; font: inherit; padding: .4rem .6rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--back); color: inherit; }
button { font: inherit; padding: .4rem .9rem; border: 1px solid var(--line); border-radius: .4rem; cursor: pointer;
  background: var(--plain-back); color: inherit; }
a { color: var(--link); } .faint { color: var(--faint); }
article { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1.1rem;
  margin: 0 0 .9rem; }
h2 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
.top { display: flex; flex-wrap: wrap; gap: .3rem .7rem; align-items: baseline; }
.mark { font-size: .8rem; border-radius: 1rem; padding: .05rem .6rem; background: var(--plain-back); white-space: nowrap; }
.good { color: var(--good); background: var(--good-back); } .bad { color: var(--bad); background: var(--bad-back); }
p { margin: .4rem 0; } .alarm { border-radius: .4rem; padding: .5rem .8rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .6rem 0; }
dt { color: var(--faint); } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
code { font: .86em ui-monospace, monospace; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--link); } details ul { margin: .3rem 0; padding-left: 1.2rem; }
nav { display: flex; gap: 1rem; padding: .3rem 0 2rem; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; } }
";

// === impl Page ===

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Escaped(&self.query.text);
        write!(
            f,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>dhow registry</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <link rel=\"stylesheet\" href=\"/style.css\"></head><body>\n\
             <header><div><h1><a href=\"/\">dhow registry</a></h1>\n\
             <form action=\"/\" role=\"search\"><input type=\"search\" name=\"q\" value=\"{text}\" \
             aria-label=\"Search\" placeholder=\"Name, tag, capability, interface …\"><button>Search</button></form>\n"
        )?;
        if let Some(user) = self.user {
            write!(f, "<span class=\"faint\">{}</span>", Escaped(user))?;
        }
        f.write_str("</div></header><main>\n")?;
        if let Some(mistake) = self.mistake {
            writeln!(f, "<p class=\"alarm bad\">{}</p>", Escaped(mistake))?;
        }
        if self.damaged > 0 {
            let (count, are) = match self.damaged {
                1 => ("One stored blob".to_owned(), "is"),
                count => (format!("{count} stored blobs"), "are"),
            };
            writeln!(
                f,
                "<p class=\"alarm bad\" role=\"alert\">{count} {are} damaged and not given out; \
                 <a href=\"/api/v1/damaged\">which</a>. Pushing them again repairs them.</p>"
            )?;
        }
        self.summary(f)?;
        for module in &self.found.modules {
            self.module(f, module)?;
        }
        self.pages(f)?;
        f.write_str("</main></body></html>\n")
    }
}

impl Page<'_> {
    fn summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = match self.query.text.trim() {
            "" => String::new(),
            text => format!(" for “{}”", Escaped(text)),
        };
        match self.found.total {
            0 if about.is_empty() => {
                let host = self.url.split_once("://").map_or(self.url, |(_, host)| host);
                writeln!(
                    f,
                    "<p>No modules yet. Push one: <code>oras push {}/hello:1.0.0 hello.wasm:application/wasm</code></p>",
                    Escaped(host)
                )
            }
            0 => writeln!(f, "<p>Nothing found{about}. <a href=\"/\">All modules</a></p>"),
            1 => writeln!(f, "<p class=\"faint\">One module{about}</p>"),
            total => writeln!(f, "<p class=\"faint\">{total} modules{about}</p>"),
        }
    }

    fn module(&self, f: &mut fmt::Formatter<'_>, module: &FoundModule) -> fmt::Result {
        let claims = module.claims.as_ref();
        let (class, mark) = match (module.holds, module.signed) {
            (true, _) => ("good", "verified"),
            (false, true) => ("bad", "does not hold"),
            (false, false) => ("", "unsigned"),
        };
        write!(
            f,
            "<article><div class=\"top\"><h2>{}</h2><span class=\"mark {class}\">{mark}</span>",
            Escaped(&module.repository)
        )?;
        for tag in &module.tags {
            write!(f, "<span class=\"mark\">{}</span>", Escaped(tag))?;
        }
        f.write_str("</div>\n")?;
        if !module.reason.is_empty() && module.signed {
            writeln!(f, "<p class=\"alarm bad\">{}</p>", Escaped(&module.reason))?;
        }
        f.write_str("<dl>")?;
        let mut row = |name: &str, value: &str| match value {
            "" => Ok(()),
            value => writeln!(f, "<dt>{name}</dt><dd>{}</dd>", Escaped(value)),
        };
        if let Some(claims) = claims {
            row("name", claims.name.as_deref().unwrap_or_default())?;
            let revision =
                claims.revision.map_or(String::new(), |revision| format!(" (revision {revision})"));
            row("version", &format!("{}{revision}", claims.version.as_deref().unwrap_or_default()))?;
            row("capabilities", if claims.capabilities.is_empty() { "none" } else { "" })?;
            row("capabilities", &claims.capabilities.join(", "))?;
            row("tags", &claims.tags.join(", "))?;
            row("issuer", &claims.issuer)?;
            row("subject", &claims.subject)?;
            row(
                "expires",
                &claims.expires.map_or_else(|| "never".to_owned(), crate::registry::search::when),
            )?;
        }
        let host = self.url.split_once("://").map_or(self.url, |(_, host)| host);
        let selector =
            module.tags.last().map_or_else(|| format!("@{}", module.digest), |tag| format!(":{tag}"));
        row("reference", &format!("oci://{host}/{}{selector}", module.repository))?;
        row("is a", &[module.kind.as_str(), module.abi.as_str()].join(", "))?;
        row("pushed", &module.pushed)?;
        row("digest", &module.digest.to_string())?;
        f.write_str("</dl>")?;
        interfaces(f, "Imports", &module.imports)?;
        interfaces(f, "Exports", &module.exports)?;
        f.write_str("</article>\n")
    }

    fn pages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found.pages < 2 && self.found.page < 2 {
            return Ok(());
        }
        let link = |page: usize| format!("/?q={}&amp;page={page}", escape(&self.query.text));
        f.write_str("<nav aria-label=\"Pages\">")?;
        let page = self.found.page.min(self.found.pages + 1);
        if page > 1 {
            write!(f, "<a href=\"{}\" rel=\"prev\">Previous</a>", link(page - 1))?;
        }
        write!(f, "<span class=\"faint\">Page {} of {}</span>", self.found.page, self.found.pages)?;
        if page < self.found.pages {
            write!(f, "<a href=\"{}\" rel=\"next\">Next</a>", link(page + 1))?;
        }
        f.write_str("</nav>")
    }
}

fn interfaces(f: &mut fmt::Formatter<'_>, title: &str, names: &[String]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    write!(f, "<details><summary>{title}: {}</summary><ul>", names.len())?;
    for name in names {
        write!(f, "<li><code>{}</code></li>", Escaped(name))?;
    }
    f.write_str("</ul></details>\n")
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Control characters and those that change the direction of what follows.
                c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    f.write_str("\u{fffd}")?;
                }
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Escaped;

    #[test]
    fn nothing_that_was_pushed_is_markup() {
        let shown = Escaped("<script>\"a\" & 'b'</script>\u{0}\u{202e}é").to_string();
        assert_eq!(shown, "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;\u{fffd}\u{fffd}é");
    }
}
