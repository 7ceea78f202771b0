//! Two things in which Go's YAML scanner differs from the one used here: it stops after the first document, and it
//! refuses tabs where indentation belongs.

/// What stands before the second document, if there is one: nothing after it is looked at, nor need it be YAML.
pub fn first_document(text: &str) -> &str {
    let (mut begun, mut at) = (false, 0);
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        if begun && (is_marker(bare, "---") || is_marker(bare, "...")) {
            return &text[..at];
        }
        begun |= !bare.is_empty() && !bare.starts_with(['#', '%']);
        at += line.len();
    }
    text
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

/// The first line, from 0, that a tab indents, outside of quotes, brackets and block texts; and Go's word for it.
pub fn stray_tab(text: &str) -> Option<(usize, &'static str)> {
    let mut place = Place::default();
    text.lines().enumerate().find_map(|(n, line)| place.next_line(line).map(|why| (n, why)))
}

/// Where a line starts.
#[derive(Default)]
struct Place {
    quote: Option<char>,
    /// Open brackets.
    brackets: usize,
    /// In a block text, the indentation of the line that began it.
    block: Option<usize>,
    /// After an unquoted text, which the next line may continue, the indentation of the line it stands in.
    plain: Option<usize>,
}

impl Place {
    /// Looks at the next line: why it is wrong, if it is.
    fn next_line(&mut self, line: &str) -> Option<&'static str> {
        if self.quote.is_none() && self.brackets == 0 {
            let content = line.trim_start_matches(' ');
            let indent = line.len() - content.len();
            if self.block.is_some_and(|parent| content.is_empty() || indent > parent) {
                return None;
            }
            self.block = None;
            match self.plain {
                _ if !content.starts_with('\t') => {}
                Some(parent) if indent > parent => return None,
                Some(_) => return Some("found a tab character that violates indentation"),
                None => return Some("found character that cannot start any token"),
            }
        }
        self.follow(line);
        None
    }

    /// Finds out where the line ends.
    fn follow(&mut self, line: &str) {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if !line.is_empty() {
            self.plain = None;
        }
        let mut token_starts = true;
        let mut before = ' ';
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            if let Some(quote) = self.quote {
                match c {
                    '\\' if quote == '"' => drop(chars.next()),
                    '\'' if quote == '\'' && chars.peek() == Some(&'\'') => drop(chars.next()),
                    c if c == quote => self.quote = None,
                    _ => {}
                }
                before = c;
                continue;
            }
            let ends_word = chars.peek().is_none_or(|next| next.is_whitespace());
            match c {
                ' ' | '\t' => {}
                '#' if before.is_whitespace() => {
                    self.plain = None;
                    return;
                }
                '"' | '\'' if token_starts => (self.quote, token_starts) = (Some(c), false),
                '[' | '{' if token_starts || self.brackets > 0 => {
                    (self.brackets, token_starts) = (self.brackets + 1, true)
                }
                ']' | '}' if self.brackets > 0 => (self.brackets, token_starts) = (self.brackets - 1, false),
                ',' if self.brackets > 0 => token_starts = true,
                '|' | '>' if token_starts && self.brackets == 0 => {
                    self.block = Some(indent);
                    return;
                }
                ':' if ends_word || self.brackets > 0 => (self.plain, token_starts) = (None, true),
                '-' | '?' if token_starts && ends_word => {}
                _ if token_starts && self.brackets == 0 => (self.plain, token_starts) = (Some(indent), false),
                _ => {}
            }
            before = c;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_document_ends_where_the_second_begins() {
        for (text, first) in [
            ("name: a\n", "name: a\n"),
            ("name: a\n---\nname: b\n", "name: a\n"),
            ("---\nname: a\n---\nname: b\n", "---\nname: a\n"),
            ("# c\n\n--- # d\nname: a\n...\n\tjunk", "# c\n\n--- # d\nname: a\n"),
            ("---\n---\nname: b", "---\n"),
            ("%YAML 1.1\n---\nname: a\r\n---\r\n", "%YAML 1.1\n---\nname: a\r\n"),
            ("name: a\n----\n --- b\n", "name: a\n----\n --- b\n"),
            ("", ""),
        ] {
            assert_eq!(first_document(text), first, "{text:?}");
        }
    }

    #[test]
    fn tabs_are_no_indentation() {
        const START: &str = "found character that cannot start any token";
        const CONTINUE: &str = "found a tab character that violates indentation";
        for (text, found) in [
            ("\tname: x", Some((0, START))),
            ("name: x\n\tpre-vote: true", Some((1, CONTINUE))),
            ("name: x\n\n\tpre-vote: true", Some((2, CONTINUE))),
            ("name: x # c\n\tpre-vote: true", Some((1, START))),
            ("a:\n\tb: c", Some((1, START))),
            ("a:\n  \tb: c", Some((1, START))),
            ("a: |\n  x\n\ty", Some((2, START))),
            ("a: 'x'\n\t# y", Some((1, START))),
            ("a: [b]\n\tc: d", Some((1, START))),
            ("name: x\n  \ty\n", None),
            ("name:\tx\nb: y\t# c", None),
            ("a: |\n  x\n  \ty\n", None),
            ("a: \"x\n\ty\"\nb: c", None),
            ("a: 'it''s\n\ty'\nb: c", None),
            ("a: [\n\tb,\n\tc\n]\nb: c", None),
            ("{\n\t\"name\": \"x\"\n}", None),
            ("a: b # it's [\nc: it's {\n", None),
        ] {
            assert_eq!(stray_tab(text), found, "{text:?}");
        }
    }
}
