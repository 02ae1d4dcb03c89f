use super::*;

const NOW: UnixMillis = UnixMillis(1_704_110_400_000);

/// Decodes bytes; each sample as `metric=value unit @time`.
fn samples(format: Format, bytes: &[u8], piece: usize) -> (Vec<String>, Counts) {
    let (mut decoder, mut out) = (Decoder::new(format, None), Vec::new());
    for piece in bytes.chunks(piece) {
        decoder.feed(piece, NOW, &mut out);
    }
    decoder.finish(&mut out);
    let shown = |sample: &Sample| {
        let unit = sample.unit.as_deref().map(|unit| format!(" {unit}")).unwrap_or_default();
        let at = sample.at.map(|at| format!(" @{at}")).unwrap_or_default();
        format!("{}={}{unit}{at}", sample.metric, sample.value)
    };
    (out.iter().map(shown).collect(), decoder.counts())
}

fn check(format: Format, text: &str, expected: &[&str], counts: (u64, u64, u64)) {
    let (good, damaged, foreign) = counts;
    let counts = Counts { good, damaged, foreign };
    for piece in [1, 2, 7, 16, 64, text.len().max(1)] {
        let found = samples(format.clone(), text.as_bytes(), piece);
        assert_eq!(found, (expected.iter().map(ToString::to_string).collect(), counts), "{text}");
    }
}

#[test]
fn json_lines() {
    let text = concat!(
        "boot v1.2\r\n",
        "{\"temp\":21.5,\"hum\":\"48.2\",\"in\":{\"co2\":600},\"adc\":[1,2],\"gone\":null,\"n\":\"NaN\"}\r\n",
        "{\"temp\":21.\n",
        "{\"metric\":\"t\",\"value\":3,\"unit\":\"C\"}\n",
        "{\"ts\":1704110399,\"up\":5}\n",
        "{\"time\":\"1970-01-01T00:00:32\",\"up\":true}\n",
    );
    check(
        Format::Json,
        text,
        &[
            "temp=21.5", "hum=48.2", "in.co2=600", "adc.0=1", "adc.1=2", "t=3 C",
            "up=5 @2024-01-01T11:59:59Z",
            "time=1970-01-01T00:00:32", "up=true",
        ],
        (4, 1, 1),
    );
}

#[test]
fn labels_and_values() {
    let text = "temp=21.5C;hum=40%\nT: 21.5 H: -3e2\ntemp_C=1,x=oops,ok=true\nhello world\nv=3.3V up\n";
    check(
        Format::Kv,
        text,
        &["temp=21.5 C", "hum=40 %", "T=21.5", "H=-300.0", "temp=1 C", "ok=true", "v=3.3 V"],
        (4, 0, 1),
    );
}

#[test]
fn columns_with_and_without_a_header() {
    check(
        Format::Csv(Csv::new(&[])),
        "temp_C;hum;note\n21.5;40;\"a;b\"\n22.0;;x\ntemp_C;hum;note\n1;2;3\n1;2\n",
        &["temp=21.5 C", "hum=40", "note=a;b", "temp=22.0 C", "note=x", "temp=1 C", "hum=2", "note=3"],
        (5, 1, 0),
    );
    check(
        Format::Csv(Csv::new(&["a".into(), "b".into()])),
        "1,2\n3,nan\n",
        &["a=1", "b=2", "a=3"],
        (2, 0, 0),
    );
    check(Format::Csv(Csv::new(&[])), "1  2\n3 4\n", &["c1=1", "c2=2", "c1=3", "c2=4"], (2, 0, 0));
}

#[test]
fn patterns() {
    let pattern = |text: &str| Format::Pattern(text.parse().unwrap());
    check(
        pattern("Humidity: {hum:%} *Temperature: {temp:°C}"),
        "Humidity: 40.1 %  Temperature: 21.5 *C\nHumidity: nan % Temperature: 2\nbanner\n",
        &["hum=40.1 %", "temp=21.5 °C", "temp=2 °C"],
        (2, 0, 1),
    );
    check(pattern("S{id}:{state};"), "S7:open;\nS8:;\n", &["id=7", "state=open"], (1, 0, 1));
    for (text, at) in [("{a", 1), ("x}", 2), ("{}", 1), ("{a}{b}", 4), ("plain", 1)] {
        assert_eq!(text.parse::<Pattern>().unwrap_err().at, at, "{text}");
    }
}

#[test]
fn guesses_from_the_first_lines_and_loses_nothing() {
    let guess = || Format::Guess(Guess::default());
    check(guess(), "booting\n{\"t\":1}\n{\"t\":2}\n", &["t=1", "t=2"], (2, 0, 1));
    check(guess(), "ready\nt=1 h=2\n", &["t=1", "h=2"], (1, 0, 1));
    check(guess(), "temp,hum\n1,2\n3,4\n", &["temp=1", "hum=2", "temp=3", "hum=4"], (3, 0, 0));
    check(guess(), "1.5 2\n3 4\n", &["c1=1.5", "c2=2", "c1=3", "c2=4"], (2, 0, 0));
}

#[test]
fn payloads_of_messages() {
    let read = |payload: &[u8]| {
        let (mut context, mut out) = (Context { now: NOW, ..Context::default() }, Vec::new());
        let outcome = json::message(payload, "m", &mut context, &mut out);
        let shown = |sample: &Sample| format!("{}={}", sample.metric, sample.value);
        (outcome, out.iter().map(shown).collect::<Vec<_>>())
    };
    let damaged = |why| (Outcome::Damaged(why), Vec::new());
    assert_eq!(read(b"21.5"), (Outcome::Good, vec!["m=21.5".into()]));
    assert_eq!(read(b"ON"), (Outcome::Good, vec!["m=ON".into()]));
    assert_eq!(read(b"true"), (Outcome::Good, vec!["m=true".into()]));
    assert_eq!(read(b""), (Outcome::Good, vec![]));
    assert_eq!(read(b"nan"), (Outcome::Good, vec![]));
    assert_eq!(read(b"{\"a\":1}"), (Outcome::Good, vec!["m.a=1".into()]));
    assert_eq!(read(b"{\"a\":"), damaged("a payload that is no JSON"));
    assert_eq!(read(b"\xff"), damaged("a payload that is no UTF-8"));
}

#[test]
fn topics() {
    let template: topic::Template = "plant/{site}/{device}/{metric}".parse().unwrap();
    assert_eq!(template.filter(), "plant/+/+/+");
    let captures = template.read("plant/north/boiler/temp").unwrap();
    assert_eq!((captures.device, captures.metric), (Some("boiler"), Some("temp")));
    assert_eq!(template.read("plant/north/boiler"), None);
    assert_eq!(template.read("plant/north/boiler/temp/x"), None);
    let rest: topic::Template = "farm/{device}/#".parse().unwrap();
    assert_eq!(rest.filter(), "farm/+/#");
    assert!(rest.read("farm/a/b/c").is_some());
    for text in ["a/#/b", "a/{device}/{device}", "a/x{device}", "a/b+"] {
        assert!(text.parse::<topic::Template>().is_err(), "{text}");
    }
}
