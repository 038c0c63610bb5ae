//! What reading one body costs: `cargo bench`. Bodies come in pieces of 16 KiB, about as Envoy's sockets give them.

use gwanmun::scan::Scanner;
use std::hint::black_box;
use std::time::{Duration, Instant};

const PIECE: usize = 16 * 1024;

fn main() {
    let chat = |content: &str| format!(r#"{{"messages":[{{"role":"user","content":"{content}"}}],"model":"gpt-4"}}"#);
    let code = r#"    if (a[\"b\"] == '\\t') {\n\t\treturn compute(first, second);\n"#;
    let code_in_json = r#"{\"code\":\"if (a[\\\"b\\\"] == 1) {\\n  return compute(first, second);\\n\"}"#;
    let messages = r#"{\"role\":\"user\",\"content\":\"hi\"},"#.replace('\\', "");
    for (name, body) in [
        ("1 KB of prose", chat(&"word ".repeat(190))),
        ("220 KB of prose", chat(&"word ".repeat(44_000))),
        ("220 KB of code", chat(&code.repeat(220_000 / code.len()))),
        ("220 KB of code in JSON", chat(&code_in_json.repeat(220_000 / code_in_json.len()))),
        ("220 KB of quotes", chat(&"\\\"".repeat(110_000))),
        (
            "220 KB of short messages",
            format!(r#"{{"x":[{}0],"model":"m"}}"#, messages.repeat(220_000 / messages.len())),
        ),
        ("220 KB of numbers", format!(r#"{{"x":[{}0],"model":"m"}}"#, "12345,".repeat(36_000))),
    ] {
        println!("{name}: {:.2} us", best(body.as_bytes()).as_secs_f64() * 1e6);
    }
}

fn best(body: &[u8]) -> Duration {
    let rounds = 4_000_000 / body.len();
    let round = || {
        let start = Instant::now();
        for _ in 0..rounds {
            let mut scanner = Scanner::default();
            body.chunks(PIECE).for_each(|piece| scanner.feed(black_box(piece)));
            assert!(black_box(scanner.finish()).model.is_ok());
        }
        start.elapsed() / u32::try_from(rounds).expect("few rounds")
    };
    (0..20).map(|_| round()).min().expect("some rounds")
}
