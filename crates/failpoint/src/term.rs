//! Terms: what a failpoint does when it is hit.
//!
//! ```text
//! terms    = term { "->" term }                       "->" may end the text
//! term     = { modifier } verb [ value ]
//! modifier = float "%" | integer "*"                  all of them must allow the term
//! verb     = "off" | "return" | "sleep" | "panic" | "print" | "break"
//! value    = "()" | "(" ( "text" | `text` | integer | true | false ) ")"
//! ```
//!
//! Each evaluation takes the first term that its modifiers allow: a percentage by a throw of dice, a count as long as
//! it is not used up. A count is used up only when the modifiers before it allowed the term. When no term is allowed
//! nothing happens. There is no white space between the parts.
//!
//! gofail reads `50%` as a count without its star and refuses it (it wants `50.0%`); here both are percentages.

/// What a `return` term carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `return` and `return()`.
    Unit,
    /// `return("text")`.
    Text(String),
    /// `return(7)`.
    Int(i64),
    /// `return(true)`.
    Bool(bool),
}

impl std::fmt::Display for Value {
    /// As Go's `%v`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Unit => f.write_str("{}"),
            Value::Text(text) => f.write_str(text),
            Value::Int(n) => n.fmt(f),
            Value::Bool(b) => b.fmt(f),
        }
    }
}

/// What a term does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Off,
    Return,
    Sleep,
    Panic,
    Print,
    Break,
}

const VERBS: [(&str, Verb); 6] = [
    ("off", Verb::Off),
    ("return", Verb::Return),
    ("sleep", Verb::Sleep),
    ("panic", Verb::Panic),
    ("print", Verb::Print),
    ("break", Verb::Break),
];

/// One evaluation's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    pub verb: Verb,
    pub value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Modifier {
    /// 0 to 1.
    Chance(f64),
    /// Left.
    Count(u64),
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    modifiers: Vec<Modifier>,
    action: Action,
}

/// A chain of terms and what is left of its counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms(Vec<Term>);

impl Terms {
    /// Parses a chain; `None` when the text is no chain.
    pub fn parse(text: &str) -> Option<Terms> {
        let mut chain = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (term, after) = term(rest)?;
            chain.push(term);
            rest = if after.is_empty() { after } else { after.strip_prefix("->")? };
        }
        (!chain.is_empty()).then_some(Terms(chain))
    }

    /// What to do now; `dice` throws a number from 0 up to 1.
    pub fn evaluate(&mut self, dice: &mut dyn FnMut() -> f64) -> Option<Action> {
        self.0.iter_mut().find_map(|t| t.modifiers.iter_mut().all(|m| m.allows(dice)).then(|| t.action.clone()))
    }
}

impl Modifier {
    fn allows(&mut self, dice: &mut dyn FnMut() -> f64) -> bool {
        match self {
            Modifier::Chance(chance) => dice() <= *chance,
            Modifier::Count(0) => false,
            Modifier::Count(left) => {
                *left -= 1;
                true
            }
        }
    }
}

fn term(text: &str) -> Option<(Term, &str)> {
    let (modifiers, rest) = modifiers(text)?;
    let (verb, rest) = VERBS.iter().find_map(|(word, verb)| Some((*verb, rest.strip_prefix(word)?)))?;
    let (value, rest) = if rest.starts_with('(') { value(rest)? } else { (Value::Unit, rest) };
    Some((Term { modifiers, action: Action { verb, value } }, rest))
}

fn modifiers(text: &str) -> Option<(Vec<Modifier>, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        match after.strip_prefix('%') {
            Some(after) => {
                found.push(Modifier::Chance(number.parse::<f64>().ok()? / 100.0));
                rest = after;
            }
            None => {
                found.push(Modifier::Count(number.parse().ok()?));
                rest = after.strip_prefix('*')?;
            }
        }
    }
    Some((found, rest))
}

/// Parses `(…)`.
fn value(text: &str) -> Option<(Value, &str)> {
    let inside = text.strip_prefix('(')?;
    let (value, rest) = match inside.as_bytes().first()? {
        b')' => (Value::Unit, inside),
        b'"' => quoted(&inside[1..])?,
        b'`' => {
            let (raw, rest) = inside[1..].split_once('`')?;
            (Value::Text(raw.into()), rest)
        }
        _ => {
            let (word, _) = inside.split_once(')')?;
            (bare(word)?, &inside[word.len()..])
        }
    };
    Some((value, rest.strip_prefix(')')?))
}

fn bare(word: &str) -> Option<Value> {
    match word {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => word.parse().ok().map(Value::Int),
    }
}

/// Parses the rest of a quoted text, with Go's commonest escapes.
fn quoted(text: &str) -> Option<(Value, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Value::Text(out), &text[at + 1..])),
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                same @ ('"' | '\\') => same,
                _ => return None,
            }),
            '\n' => return None,
            _ => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(verb: Verb, value: Value) -> Action {
        Action { verb, value }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn never() -> f64 {
        1.0
    }

    #[test]
    fn a_term_is_a_verb_with_a_value() {
        for (term, expected) in [
            ("off", action(Verb::Off, Value::Unit)),
            ("return", action(Verb::Return, Value::Unit)),
            ("return()", action(Verb::Return, Value::Unit)),
            ("return(\"a b)->\")", action(Verb::Return, text("a b)->"))),
            (r#"return("a\"b\\\n")"#, action(Verb::Return, text("a\"b\\\n"))),
            ("return(`a\"b`)", action(Verb::Return, text("a\"b"))),
            ("return(\"\")", action(Verb::Return, text(""))),
            ("return(7)", action(Verb::Return, Value::Int(7))),
            ("return(-7)", action(Verb::Return, Value::Int(-7))),
            ("return(true)", action(Verb::Return, Value::Bool(true))),
            ("return(false)", action(Verb::Return, Value::Bool(false))),
            ("sleep(100)", action(Verb::Sleep, Value::Int(100))),
            ("sleep(\"1s\")", action(Verb::Sleep, text("1s"))),
            ("panic", action(Verb::Panic, Value::Unit)),
            ("panic(\"why\")", action(Verb::Panic, text("why"))),
            ("print", action(Verb::Print, Value::Unit)),
            ("break", action(Verb::Break, Value::Unit)),
            ("off->", action(Verb::Off, Value::Unit)),
            ("100%off", action(Verb::Off, Value::Unit)),
            ("100.0%2*off", action(Verb::Off, Value::Unit)),
        ] {
            let mut terms = Terms::parse(term).unwrap_or_else(|| panic!("{term} is a term"));
            assert_eq!(terms.evaluate(&mut never), Some(expected), "{term}");
        }
    }

    #[test]
    fn what_is_no_term_is_refused() {
        for bad in [
            "",
            "x",
            "->",
            "->off",
            "off ",
            " off",
            "off\n",
            "offx",
            "off-",
            "off->->off",
            "off -> off",
            "OFF",
            "3",
            "3*",
            "50%",
            "*off",
            "%off",
            "-1*off",
            "1.5*off",
            "1.2.3%off",
            "99999999999999999999*off",
            "sleep(",
            "sleep)",
            "sleep(2s)",
            "sleep( 2)",
            "return(\"a)",
            "return(\"a\"",
            "return(\"a\"b)",
            "return(\"\\q\")",
            "return(`a)",
            "return(99999999999999999999)",
            "return(True)",
        ] {
            assert_eq!(Terms::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn counted_terms_are_used_up_in_order_and_then_nothing_happens() {
        let mut terms = Terms::parse("2*return(1)->1*return(2)").expect("a chain");
        let mut seen = || terms.evaluate(&mut never).map(|a| a.value);
        assert_eq!([seen(), seen()], [Some(Value::Int(1)), Some(Value::Int(1))]);
        assert_eq!([seen(), seen(), seen()], [Some(Value::Int(2)), None, None]);
    }

    #[test]
    fn the_last_term_without_a_modifier_stays() {
        let mut terms = Terms::parse("1*panic->0*print->off").expect("a chain");
        let mut seen = || terms.evaluate(&mut never).map(|a| a.verb);
        assert_eq!([seen(), seen(), seen()], [Some(Verb::Panic), Some(Verb::Off), Some(Verb::Off)]);
    }

    #[test]
    fn a_percentage_falls_through_to_the_next_term() {
        let mut throws = [0.2, 0.3, 0.25].into_iter();
        let mut dice = || throws.next().expect("one throw an evaluation");
        let mut terms = Terms::parse("25%return->off").expect("a chain");
        let verbs: Vec<_> = (0..3).filter_map(|_| terms.evaluate(&mut dice)).map(|a| a.verb).collect();
        assert_eq!(verbs, [Verb::Return, Verb::Off, Verb::Return]);
    }

    #[test]
    fn a_count_behind_a_percentage_counts_only_what_the_percentage_allowed() {
        let mut throws = [0.9, 0.1, 0.1].into_iter();
        let mut dice = || throws.next().expect("one throw an evaluation");
        let mut terms = Terms::parse("50%1*print").expect("a chain");
        let hits: Vec<_> = (0..3).map(|_| terms.evaluate(&mut dice).is_some()).collect();
        assert_eq!(hits, [false, true, false]);
    }
}
