//! Forms as clients send them, forms that mean two things, and forms that mean nothing.

use super::{Form, MAX_HEADER_BYTES};
use crate::problem::{Place, Problem, SyntaxError, Unexpected, Unusable};
use crate::scan::Reading;
use crate::testing::Chance;

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    let mut form = Form::new(b"xYz");
    chunks.into_iter().for_each(|chunk| form.feed(chunk));
    form.finish()
}

fn model(text: &str) -> Result<String, Problem> {
    read([text.as_bytes()]).model
}

fn part(headers: &str, content: &str) -> String {
    format!("--xYz\r\n{headers}\r\n\r\n{content}\r\n")
}

fn field(name: &str, content: &str) -> String {
    part(&format!("Content-Disposition: form-data; name=\"{name}\""), content)
}

fn form(parts: &[String]) -> String {
    parts.concat() + "--xYz--\r\n"
}

fn transcription() -> String {
    let audio = "RIFF\r\n--xY\r\n--xYq\r\r\n-\r\n--\n";
    let file = part(
        "content-disposition: form-data; name=\"file\"; filename=\"a\\\"b.wav\"\r\nContent-Type: audio/wav",
        audio,
    );
    form(&[file, field("stream", "true"), field("model", "whisper-1"), field("language", "ko")])
}

#[test]
fn the_field_is_taken() {
    assert_eq!(read([transcription().as_bytes()]), Reading { model: Ok("whisper-1".into()), stream: true });
    for text in [
        format!("preamble\r\n{}epilogue", form(&[field("model", "whisper-1")])),
        format!("\r\n{}", form(&[field("model", "whisper-1")])),
        form(&[field("model", "whisper-1")]).replace("--xYz\r\n", "--xYz \t\r\n"),
        form(&[part("Content-Type: text/plain\r\nCONTENT-DISPOSITION:form-data ;NAME=model", "whisper-1")]),
        form(&[part("Content-Disposition: form-data; name=model\r\nContent-Transfer-Encoding: 8BIT", "whisper-1")]),
        form(&[field("models", "x"), field("", "x"), field("model", "whisper-1")]),
    ] {
        assert_eq!(model(&text).as_deref(), Ok("whisper-1"), "{text}");
        assert!(!read([text.as_bytes()]).stream);
    }
}

#[test]
fn what_is_no_model_is_told() {
    let unusable = |why| Err(Problem::ModelUnusable(why));
    for (text, expected) in [
        (String::new(), Err(Problem::Empty)),
        (form(&[field("file", "x")]), Err(Problem::NoModel(Place::FormField))),
        (form(&[field("model", "a"), field("model", "a")]), Err(Problem::ModelTwice)),
        (form(&[field("model", "")]), unusable(Unusable::Empty)),
        (form(&[field("model", "a\r\nb")]), unusable(Unusable::Control)),
        (form(&[field("model", "a\r\n--xYb")]), unusable(Unusable::Control)),
        (form(&[field("model", &"m".repeat(1025))]), unusable(Unusable::TooLong)),
        (
            form(&[part("Content-Disposition: form-data; name=\"model\"; filename=\"m\"", "a")]),
            Err(Problem::ModelNotText),
        ),
    ] {
        assert_eq!(model(&text), expected, "{text}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_chooses_no_model() {
    let disposition = "Content-Disposition: form-data; name=\"model\"";
    for headers in [
        format!("{disposition}\r\n{disposition}"),
        format!("{disposition}; name=\"file\""),
        format!("{disposition}; name*=utf-8''file"),
        "Content-Disposition: form-data; name=\"mo\\del\"".into(),
        "Content-Disposition: attachment; name=\"model\"".into(),
        "Content-Disposition: form-data".into(),
        "Content-Disposition: form-data; name=\"model".into(),
        format!("{disposition}\r\n folded"),
        format!("{disposition} \rx"),
        "Content-Disposition : form-data; name=\"model\"".into(),
        "no colon".into(),
        ": no name".into(),
        format!("Content-Transfer-Encoding: base64\r\n{disposition}"),
    ] {
        let found = model(&form(&[part(&headers, "a")]));
        let refused = matches!(found, Err(Problem::NotForm(SyntaxError { what: Unexpected::Header, .. })));
        assert!(refused, "{headers}: {found:?}");
    }
    let bare = form(&[field("model", "a")]).replacen("\r\n\r\n", "\n\n", 1);
    assert!(matches!(model(&bare), Err(Problem::NotForm(_))));
}

#[test]
fn mistakes_are_found_where_they_are() {
    for (text, what, at) in [
        ("--xYz".to_owned(), Unexpected::End, 5),
        ("{\"model\":\"a\"}".to_owned(), Unexpected::End, 13),
        ("--xYzz\r\n".to_owned(), Unexpected::Byte(b'z'), 5),
        ("--xYz-x".to_owned(), Unexpected::Byte(b'x'), 6),
        ("--xYz\r\r".to_owned(), Unexpected::Byte(b'\r'), 6),
        (format!("--xYz\r\n{}", "h".repeat(MAX_HEADER_BYTES + 1)), Unexpected::LongHeader, 7 + MAX_HEADER_BYTES as u64),
    ] {
        assert_eq!(model(&text), Err(Problem::NotForm(SyntaxError { what, at })), "{text}");
    }
    let many = format!("--xYz\r\n{}", "h: h\r\n".repeat(MAX_HEADER_BYTES));
    let expected = Err(Problem::NotForm(SyntaxError { what: Unexpected::LongHeader, at: 7 + MAX_HEADER_BYTES as u64 }));
    assert_eq!(model(&many), expected);
    assert_eq!(read(many.as_bytes().chunks(5)).model, expected);
}

#[test]
fn every_cut_gives_the_same_reading_and_every_prefix_ends_too_early() {
    let text = transcription();
    let (bytes, expected) = (text.as_bytes(), read([text.as_bytes()]));
    for cut in 0..=bytes.len() {
        assert_eq!(read([&bytes[..cut], &bytes[cut..]]), expected);
    }
    assert_eq!(read(bytes.chunks(1)), expected);
    for end in 1..bytes.len() - 3 {
        assert!(matches!(read([&bytes[..end]]).model, Err(Problem::NotForm(_))), "until {end}");
    }
}

#[test]
fn broken_forms_read_the_same_in_any_chunks() {
    let mut chance = Chance(5);
    let text = transcription();
    let (mut found, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let bytes = chance.mutate(text.as_bytes(), b"\r\n-xYz:;=\"\\ \x00\xff");
        let reading = read([bytes.as_slice()]);
        let chunks = chance.chunks(&bytes);
        assert_eq!(read(chunks), reading, "{}", String::from_utf8_lossy(&bytes));
        *(if reading.model.is_ok() { &mut found } else { &mut refused }) += 1;
    }
    assert!(found > 1000 && refused > 1000, "{found} found, {refused} refused");
}
