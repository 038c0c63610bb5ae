//! The scanner against a generator that knows the answer, and against serde_json.

use super::string::{end_of_string, StringEnd};
use super::{Reading, Scanner, MAX_DEPTH};
use crate::problem::{Place, Problem, SyntaxError, Unexpected, Unusable};
use crate::testing::Chance;
use serde_json::Value;

const SYNTAX: &[u8] = b"{}[]\":,\\ntrufalse0123456789.eE+-u \n\x00\xff";

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    let mut scanner = Scanner::default();
    chunks.into_iter().for_each(|chunk| scanner.feed(chunk));
    scanner.finish()
}

fn model(text: &str) -> Result<String, Problem> {
    read([text.as_bytes()]).model
}

fn not_json(what: Unexpected, at: u64) -> Result<String, Problem> {
    Err(Problem::NotJson(SyntaxError { what, at }))
}

#[test]
fn the_top_level_model_is_taken() {
    for text in [
        r#"{"model":"m"}"#,
        " \t\r\n{ \"model\" : \"m\" } \n",
        r#"{"a":{"model":"x"},"b":[{"model":"y"},"model"],"model":"m","c":{"model":"z"}}"#,
        r#"{"mod\u0065l":"\u006d"}"#,
        r#"{"\u006D\u006F\u0064\u0065\u006C":"m"}"#,
        r#"{"x":"\\","y":"\"model\":\"x\"","model":"m"}"#,
        r#"{"":1,"Model":"x","mode":"x","models":"x","model ":"x","\ud800":"x","model":"m"}"#,
        r#"{"x":[1,-0,0.5,1e9,2E-3,true,false,null,{},[]],"model":"m"}"#,
    ] {
        assert_eq!(model(text).as_deref(), Ok("m"), "{text}");
    }
}

#[test]
fn values_are_unescaped() {
    assert_eq!(model(r#"{"model":"a\/b\"c\\d"}"#).as_deref(), Ok("a/b\"c\\d"));
    assert_eq!(model(r#"{"model":"모델 \ud83d\ude00"}"#).as_deref(), Ok("모델 😀"));
}

#[test]
fn what_is_no_model_is_told() {
    let unusable = |why| Err(Problem::ModelUnusable(why));
    for (text, expected) in [
        ("{}", Err(Problem::NoModel(Place::TopLevel))),
        (r#"["model"]"#, Err(Problem::NoModel(Place::TopLevel))),
        (r#""model""#, Err(Problem::NoModel(Place::TopLevel))),
        ("12", Err(Problem::NoModel(Place::TopLevel))),
        ("", Err(Problem::Empty)),
        (r#"{"model":"a","model":"a"}"#, Err(Problem::ModelTwice)),
        (r#"{"model":1,"mod\u0065l":"a"}"#, Err(Problem::ModelTwice)),
        (r#"{"model":null}"#, Err(Problem::ModelNotText)),
        (r#"{"model":["a"]}"#, Err(Problem::ModelNotText)),
        (r#"{"model":{"model":"a"}}"#, Err(Problem::ModelNotText)),
        (r#"{"model":""}"#, unusable(Unusable::Empty)),
        (r#"{"model":"a\n"}"#, unusable(Unusable::Control)),
        (r#"{"model":" a"}"#, unusable(Unusable::Padded)),
        (r#"{"model":"\ud800"}"#, unusable(Unusable::NotUnicode)),
        (r#"{"model":"\udc00\ud800x"}"#, unusable(Unusable::NotUnicode)),
    ] {
        assert_eq!(model(text), expected, "{text}");
    }
    assert_eq!(read([&b"{\"model\":\"\xff\"}"[..]]).model, unusable(Unusable::NotUnicode));
}

#[test]
fn a_model_of_any_length_is_read_in_bounded_memory() {
    for (length, fits) in [(1024, true), (1025, false), (1 << 20, false)] {
        let text = format!(r#"{{"model":"{}","{}":"\"","stream":true}}"#, "m".repeat(length), "k".repeat(length));
        for size in [1000, text.len()] {
            let reading = read(text.as_bytes().chunks(size));
            assert_eq!(reading.model.is_ok(), fits);
            assert!(reading.stream);
        }
    }
    assert_eq!(
        model(&format!(r#"{{"model":"{}\""}}"#, "m".repeat(1024))),
        Err(Problem::ModelUnusable(Unusable::TooLong))
    );
}

#[test]
fn stream_is_true_only_where_it_says_true() {
    for (text, expected) in [
        (r#"{"stream":true}"#, true),
        (r#"{"stream":false}"#, false),
        (r#"{"stream":"true"}"#, false),
        (r#"{"x":{"stream":true}}"#, false),
        (r#"{"stream":true,"stream":false}"#, false),
        (r#"{"stre\u0061m":true}"#, true),
    ] {
        assert_eq!(read([text.as_bytes()]).stream, expected, "{text}");
    }
}

#[test]
fn mistakes_are_found_where_they_are() {
    let unexpected = |byte| Unexpected::Byte(byte);
    for (text, what, at) in [
        ("{", Unexpected::End, 1),
        ("  ", Unexpected::End, 2),
        (r#"{"model":"a"#, Unexpected::End, 11),
        (r#"{"model":"a\u00"#, Unexpected::End, 15),
        ("{\"a\":1.", Unexpected::End, 7),
        ("tru", Unexpected::End, 3),
        ("-", Unexpected::End, 1),
        ("}", unexpected(b'}'), 0),
        ("{]", unexpected(b']'), 1),
        ("[1}", unexpected(b'}'), 2),
        ("[1,]", unexpected(b']'), 3),
        (r#"{"a":1,}"#, unexpected(b'}'), 7),
        (r#"{"a"1}"#, unexpected(b'1'), 4),
        (r#"{"a":}"#, unexpected(b'}'), 5),
        ("{a:1}", unexpected(b'a'), 1),
        ("{} {}", unexpected(b'{'), 3),
        ("[01]", unexpected(b'1'), 2),
        ("[+1]", unexpected(b'+'), 1),
        ("[1.e1]", unexpected(b'e'), 3),
        ("[1e]", unexpected(b']'), 3),
        ("[.5]", unexpected(b'.'), 1),
        ("[NaN]", unexpected(b'N'), 1),
        ("[trux]", unexpected(b'x'), 4),
        ("[truee]", unexpected(b'e'), 5),
        (r#"{"k\x":1}"#, unexpected(b'x'), 4),
        (r#"{"model":"\u00g0"}"#, unexpected(b'g'), 14),
        ("{\"model\":\"a\nb\"}", unexpected(b'\n'), 11),
        ("\u{feff}{}", unexpected(0xef), 0),
    ] {
        let bytes = text.as_bytes();
        assert_eq!(read([bytes]).model, not_json(what, at), "{text}");
        assert_eq!(read(bytes.chunks(1)).model, not_json(what, at), "{text}, byte by byte");
    }
}

#[test]
fn nesting_is_followed_to_its_limit() {
    let nested = |depth| format!(r#"{{"x":{}{},"model":"m"}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(model(&nested(MAX_DEPTH - 1)).as_deref(), Ok("m"));
    assert_eq!(model(&nested(MAX_DEPTH)), not_json(Unexpected::Depth, 5 + MAX_DEPTH as u64 - 1));
    let mixed = "[{\"a\":".repeat(MAX_DEPTH / 2) + "1" + &"}]".repeat(MAX_DEPTH / 2);
    assert_eq!(model(&mixed), Err(Problem::NoModel(Place::TopLevel)));
    assert_eq!(
        model(&mixed.replacen("}]", "]}", 1)),
        not_json(Unexpected::Byte(b']'), mixed.find('}').unwrap() as u64)
    );
}

#[test]
fn numbers_are_those_of_json() {
    for whole in ["0", "-0", "1", "10", "-12"] {
        for fraction in ["", ".", ".0", ".50"] {
            for exponent in ["", "e", "e1", "E+07", "e-", "e-2"] {
                let text = format!("[{whole}{fraction}{exponent}]");
                let expected = serde_json::from_str::<Value>(&text).is_ok();
                let found = !matches!(model(&text), Err(Problem::NotJson(_)));
                assert_eq!(found, expected, "{text}");
            }
        }
    }
}

/// A document and what must be read from it.
struct Document {
    text: String,
    models: Vec<Option<String>>,
    stream: bool,
}

fn document(chance: &mut Chance) -> Document {
    let mut found = Document { text: space(chance) + "{", models: Vec::new(), stream: false };
    for index in 0..chance.below(7) {
        let (key, value) = match chance.below(8) {
            0 | 1 => {
                let (name, text) = string(chance);
                found.models.push(Some(name));
                (escaped(chance, "model"), text)
            }
            2 if chance.below(4) == 0 => {
                found.models.push(None);
                (escaped(chance, "model"), chance.of(&["1", "null", "{}", "[\"a\"]"]).to_owned())
            }
            3 => {
                let stream = chance.below(2) == 0;
                found.stream = stream;
                (escaped(chance, "stream"), stream.to_string())
            }
            _ => (string(chance).1.replacen('"', "\"_", 1), value(chance, 0)),
        };
        let comma = if index == 0 { "" } else { "," };
        let spaces: Vec<_> = (0..4).map(|_| space(chance)).collect();
        found.text += &[comma, &spaces[0], &key, &spaces[1], ":", &spaces[2], &value, &spaces[3]].concat();
    }
    found.text += "}";
    found.text += &space(chance);
    found
}

fn space(chance: &mut Chance) -> String {
    chance.of(&["", "", "", " ", "\n\t", "\r\n  "]).to_owned()
}

fn value(chance: &mut Chance, depth: usize) -> String {
    match chance.below(if depth < 5 { 8 } else { 5 }) {
        0 => chance.of(&["0", "-1.5e+3", "12345678901234567890", "true", "false", "null"]).to_owned(),
        1..=4 => string(chance).1,
        5 => format!("{{{}\"model\":{}}}", space(chance), value(chance, depth + 1)),
        6 => format!("{{\"stream\":true,{}:{}}}", string(chance).1, value(chance, depth + 1)),
        _ => format!("[{},{}{}]", value(chance, depth + 1), space(chance), value(chance, depth + 1)),
    }
}

/// A string, and how it is written.
fn string(chance: &mut Chance) -> (String, String) {
    const PIECES: [(&str, &str); 10] = [
        ("a", "a"),
        ("model", "model"),
        ("\\", "\\\\"),
        ("\"", "\\\""),
        ("모", "모"),
        ("é", "\\u00e9"),
        ("😀", "\\ud83d\\uDE00"),
        ("/", "\\/"),
        ("{[:,]}", "{[:,]}"),
        ("x", "\\u0078"),
    ];
    let pieces: Vec<_> = (0..=chance.below(12)).map(|_| chance.of(&PIECES)).collect();
    let (plain, written): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
    (plain.concat(), format!("\"{}\"", written.concat()))
}

fn escaped(chance: &mut Chance, key: &str) -> String {
    let written: Vec<_> = key
        .chars()
        .map(|letter| if chance.below(6) == 0 { format!("\\u{:04x}", letter as u32) } else { letter.to_string() })
        .collect();
    format!("\"{}\"", written.concat())
}

#[test]
fn generated_documents_are_read_in_any_chunks() {
    let mut chance = Chance(1);
    for _ in 0..3000 {
        let document = document(&mut chance);
        assert!(serde_json::from_str::<Value>(&document.text).is_ok(), "{}", document.text);
        let model = match document.models.as_slice() {
            [] => Err(Problem::NoModel(Place::TopLevel)),
            [Some(model)] => Ok(model.clone()),
            [None] => Err(Problem::ModelNotText),
            _ => Err(Problem::ModelTwice),
        };
        let expected = Reading { model, stream: document.stream };
        for _ in 0..4 {
            let chunks = chance.chunks(document.text.as_bytes());
            assert_eq!(read(chunks), expected, "{}", document.text);
        }
    }
}

#[test]
fn every_cut_gives_the_same_reading_and_every_prefix_ends_too_early() {
    let mut chance = Chance(2);
    for _ in 0..60 {
        let text = document(&mut chance).text;
        let (bytes, expected) = (text.as_bytes(), read([text.as_bytes()]));
        for cut in 0..=bytes.len() {
            assert_eq!(read([&bytes[..cut], &bytes[cut..]]), expected);
        }
        for end in 1..bytes.iter().rposition(|byte| *byte == b'}').unwrap() {
            assert_eq!(read([&bytes[..end]]).model, not_json(Unexpected::End, end as u64), "{text} until {end}");
        }
    }
}

#[test]
fn broken_documents_are_judged_as_serde_json_judges_them() {
    let mut chance = Chance(3);
    let (mut valid, mut invalid) = (0, 0);
    for _ in 0..20_000 {
        let text = document(&mut chance).text;
        let bytes = chance.mutate(text.as_bytes(), SYNTAX);
        let reading = read([bytes.as_slice()]);
        let chunks = chance.chunks(&bytes);
        assert_eq!(read(chunks), reading, "{}", String::from_utf8_lossy(&bytes));
        match serde_json::from_slice::<Value>(&bytes) {
            // Numbers out of range and broken text in strings that are not kept are the model server's business.
            Err(_) => invalid += 1,
            Ok(value) => {
                valid += 1;
                assert!(!matches!(reading.model, Err(Problem::NotJson(_))), "{}", String::from_utf8_lossy(&bytes));
                if let Ok(model) = reading.model {
                    assert_eq!(value["model"], Value::String(model));
                }
            }
        }
    }
    assert!(valid > 1000 && invalid > 1000, "{valid} valid, {invalid} invalid");
}

#[test]
fn strings_end_where_a_byte_by_byte_reading_ends_them() {
    let mut chance = Chance(4);
    for _ in 0..20_000 {
        let pieces: [&[&[u8]]; 3] =
            [&[b"\\", b"\"", b"a", b"a"], &[b"\\\"", b"aa", b"\\n"], &[b"\\\"", b"aa", b"\\\\", b"\\\\\\\""]];
        let pieces = chance.of(&pieces);
        let mut text = (0..chance.below(300)).map(|_| chance.of(pieces)).collect::<Vec<_>>().concat();
        if chance.below(2) == 0 {
            text.push(b'"');
        }
        let started = chance.below(2) == 1 && !text.is_empty();
        let expected = end_byte_by_byte(&text, started);
        assert_eq!(end_of_string(&text, started), expected, "{:?}", String::from_utf8_lossy(&text));
        assert_eq!(end_in_chunks(chance.chunks(&text), started), expected, "{:?}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn runs_of_backslashes_may_cross_the_borders_of_blocks_and_chunks() {
    for run in 0..140 {
        // Escaped quotes first, so that blocks are tested as wholes from the eleventh byte on.
        for before in 0..140 {
            let text = [&b"\\\"".repeat(5), &b"a".repeat(before), &b"\\".repeat(run), &b"\"\\\"a\""[..]].concat();
            let end = 10 + before + run + if run % 2 == 0 { 0 } else { 4 };
            assert_eq!(end_of_string(&text, false), StringEnd::At(end), "{run} behind {before}");
            let long = [&text[..end], &b"\\\"a".repeat(100)].concat();
            assert_eq!(
                end_of_string(&long, false),
                end_byte_by_byte(&long, false),
                "{run} behind {before}, more behind"
            );
            let (first, second) = text.split_at(10 + before + run / 2);
            assert_eq!(end_in_chunks([first, second], false), StringEnd::At(end), "{run} behind {before}, cut");
        }
    }
}

fn end_byte_by_byte(text: &[u8], mut escaped: bool) -> StringEnd {
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' if !escaped => return StringEnd::At(at),
            _ => escaped = *byte == b'\\' && !escaped,
        }
    }
    StringEnd::Later { escaped }
}

fn end_in_chunks<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, mut escaped: bool) -> StringEnd {
    let mut before = 0;
    for chunk in chunks.into_iter().filter(|chunk| !chunk.is_empty()) {
        match end_of_string(chunk, escaped) {
            StringEnd::At(end) => return StringEnd::At(before + end),
            StringEnd::Later { escaped: still } => escaped = still,
        }
        before += chunk.len();
    }
    StringEnd::Later { escaped }
}
