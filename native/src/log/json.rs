//! A line of JSON, written field by field. Each field's name comes with all that stands around it.

use super::{Address, Ended};

/// Envoy's response flags as it abbreviates them, by bit.
const FLAGS: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI", "IH",
    "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Line<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self { out }
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    /// The fields that every line has; it begins with them.
    pub(super) fn ended(&mut self, ended: &Ended<'_>, clock: &mut Clock) {
        self.out.extend_from_slice(b"{\"time\":\"");
        clock.write(ended.start, self.out);
        self.out.push(b'"');
        self.address(b",\"client\":", ended.client);
        self.text(b",\"cluster\":", ended.cluster);
        self.address(b",\"upstream\":", ended.upstream);
        self.flags(b",\"flags\":", ended.flags);
        self.number(b",\"bytes_received\":", ended.bytes_received);
        self.number(b",\"bytes_sent\":", ended.bytes_sent);
        self.milliseconds(b",\"duration_ms\":", ended.duration);
    }

    /// Inlined, as its like: a name of known length is copied by an instruction or two.
    #[inline(always)]
    pub(super) fn text(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.out.extend_from_slice(name);
        match value {
            Some(value) => string(self.out, value),
            None => self.out.extend_from_slice(b"null"),
        }
    }

    /// A text in one word.
    pub(super) fn word(&mut self, name: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) if value.iter().any(u8::is_ascii_whitespace) => {
                let word: Vec<u8> =
                    value.iter().map(|byte| if byte.is_ascii_whitespace() { b'_' } else { *byte }).collect();
                self.text(name, Some(&word));
            }
            value => self.text(name, value),
        }
    }

    #[inline(always)]
    pub(super) fn number(&mut self, name: &[u8], value: u64) {
        self.out.extend_from_slice(name);
        digits(self.out, value);
    }

    /// Nanoseconds as whole milliseconds.
    pub(super) fn milliseconds(&mut self, name: &[u8], value: Option<i64>) {
        match value.and_then(|nanoseconds| u64::try_from(nanoseconds).ok()) {
            Some(nanoseconds) => self.number(name, nanoseconds / 1_000_000),
            None => self.text(name, None),
        }
    }

    #[inline(always)]
    fn address(&mut self, name: &[u8], value: Option<Address<'_>>) {
        let Some((ip, port)) = value else {
            return self.text(name, None);
        };
        self.out.extend_from_slice(name);
        let (open, close): (&[u8], &[u8]) = if ip.contains(&b':') { (b"\"[", b"]:") } else { (b"\"", b":") };
        self.out.extend_from_slice(open);
        self.out.extend_from_slice(ip);
        self.out.extend_from_slice(close);
        digits(self.out, u64::from(port));
        self.out.push(b'"');
    }

    fn flags(&mut self, name: &[u8], value: u64) {
        self.out.extend_from_slice(name);
        if value == 0 {
            return self.out.extend_from_slice(b"\"-\"");
        }
        let set: Vec<&str> = (0..).zip(FLAGS).filter(|(bit, _)| value >> bit & 1 == 1).map(|(_, flag)| flag).collect();
        string(self.out, set.join(",").as_bytes());
    }
}

/// A JSON string. What is not UTF-8 in it is replaced, since a line that is none could not be read at all.
fn string(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    if is_plain(value) {
        out.extend_from_slice(value);
    } else {
        escaped(out, &String::from_utf8_lossy(value));
    }
    out.push(b'"');
}

/// Whether a text is its own JSON: printable ASCII without quotes and backslashes. Eight bytes at a time.
fn is_plain(value: &[u8]) -> bool {
    const WORD: usize = 8;
    let Some(last) = value.last_chunk::<WORD>() else {
        return value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
    };
    // The last word overlaps the one before it.
    let words = value.chunks_exact(WORD).filter_map(|word| word.first_chunk::<WORD>());
    words.chain([last]).fold(0, |found, word| found | unplain(u64::from_le_bytes(*word))) == 0
}

/// Not 0 where a byte of the word is not plain. Each byte's highest bit says so of it. A carry into the next byte comes only
/// from one that is not plain itself.
fn unplain(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let zero = |bytes: u64| bytes.wrapping_sub(EACH) & !bytes;
    let control = word.wrapping_sub(0x20 * EACH) & !word;
    let above_tilde = word.wrapping_add(EACH) | word;
    let quote = zero(word ^ (u64::from(b'"') * EACH));
    let backslash = zero(word ^ (u64::from(b'\\') * EACH));
    (control | above_tilde | quote | backslash) & (0x80 * EACH)
}

fn escaped(out: &mut Vec<u8>, value: &str) {
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            '\0'..='\x1f' | '\x7f' => out.extend_from_slice(format!("\\u{:04x}", character as u32).as_bytes()),
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn digits(out: &mut Vec<u8>, mut value: u64) {
    const MOST: usize = 20;
    let mut text = [b'0'; MOST];
    let mut first = MOST - 1;
    loop {
        text[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return out.extend_from_slice(&text[first..]);
        }
        first -= 1;
    }
}

/// Writes times. Most are of the second that the last one was of.
#[derive(Debug)]
pub(super) struct Clock {
    second: i64,
    text: String,
}

impl Default for Clock {
    fn default() -> Self {
        Self { second: i64::MIN, text: String::new() }
    }
}

impl Clock {
    /// `2026-12-01T04:00:34.123Z`, of nanoseconds since 1970.
    fn write(&mut self, nanoseconds: i64, out: &mut Vec<u8>) {
        let second = nanoseconds.div_euclid(1_000_000_000);
        if second != self.second {
            self.second = second;
            self.text = written(second);
        }
        let millisecond = nanoseconds.rem_euclid(1_000_000_000) / 1_000_000;
        out.extend_from_slice(self.text.as_bytes());
        out.extend([100, 10, 1].map(|place| b'0' + (millisecond / place % 10) as u8));
        out.push(b'Z');
    }
}

/// The second, but for its fraction. The year begins in March here, so that a leap day is its last.
fn written(second: i64) -> String {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    let (days, time) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    let since_year_0 = days + 719_468; // from 1 March of the year 0
    let (era, day_of_era) = (since_year_0.div_euclid(DAYS_OF_400_YEARS), since_year_0.rem_euclid(DAYS_OF_400_YEARS));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year_of_era, month + 3) } else { (year_of_era + 1, month - 9) };
    let (hours, minutes, seconds) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.", 400 * era + year)
}

#[cfg(test)]
mod tests {
    use super::{digits, is_plain, string, Clock};

    fn at(nanoseconds: i64) -> String {
        let mut out = Vec::new();
        Clock::default().write(nanoseconds, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_796_097_634, "2026-12-01T04:00:34.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(at(second * 1_000_000_000), text);
        }
        assert_eq!(at(1_796_097_634_012_999_999), "2026-12-01T04:00:34.012Z");
    }

    #[test]
    fn a_clock_may_be_asked_for_other_seconds() {
        let (mut clock, mut out) = (Clock::default(), Vec::new());
        for second in [5, 5, 7, 6] {
            clock.write(second * 1_000_000_000, &mut out);
        }
        let expected = [5, 5, 7, 6].map(|second| format!("1970-01-01T00:00:0{second}.000Z")).concat();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for number in [0, 7, 10, 1_000_001, u64::MAX] {
            let mut out = Vec::new();
            digits(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn each_byte_is_told_plain_or_not_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let expected = matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
            for (length, filler) in
                (1..20).flat_map(|length| [b'a', b' ', b'~', b'!', b'#', b'[', b']'].map(|filler| (length, filler)))
            {
                for place in 0..length {
                    let mut text = vec![filler; length];
                    text[place] = byte;
                    assert_eq!(is_plain(&text), expected, "{byte} at {place} of {length} {filler}");
                }
            }
        }
    }

    #[test]
    fn any_bytes_make_a_string() {
        for (bytes, text) in [
            (&b"plain"[..], "plain"),
            (b"a \"quote\" and \\", "a \"quote\" and \\"),
            ("관문".as_bytes(), "관문"),
            (b"line\nend\x7f\x00", "line\nend\x7f\0"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            let mut out = Vec::new();
            string(&mut out, bytes);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
