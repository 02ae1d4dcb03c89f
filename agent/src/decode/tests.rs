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
            "temp=21.5",
            "hum=48.2",
            "in.co2=600",
            "adc.0=1",
            "adc.1=2",
            "t=3 C",
            "up=5 @2024-01-01T11:59:59Z",
            "time=1970-01-01T00:00:32",
            "up=true",
        ],
        (4, 1, 1),
    );
}

#[test]
fn labels_and_values() {
    let text =
        "temp=21.5C;hum=40%\nT: 21.5 H: -3e2\ntemp_C=1,x=oops,ok=true\nhello world\nv=3.3V up\n";
    check(
        Format::Kv,
        text,
        &[
            "temp=21.5 C",
            "hum=40 %",
            "T=21.5",
            "H=-300.0",
            "temp_C=1 C",
            "x=oops",
            "ok=true",
            "v=3.3 V",
        ],
        (4, 0, 1),
    );
    let one = |line: &str, expected: &[&str]| {
        let counts = if expected.is_empty() { (0, 0, 1) } else { (1, 0, 0) };
        check(Format::Kv, &format!("{line}\n"), expected, counts);
    };
    one("Humidity: 40.00 %\tTemperature: 21.50 °C", &["Humidity=40.0 %", "Temperature=21.5 °C"]);
    one("temp (°C): 21.5, temp (°F): 70.7", &["temp=21.5 °C", "temp (°F)=70.7 °F"]);
    one("temp_C=21.5 temp_F=70.7", &["temp=21.5 C", "temp_F=70.7 F"]);
    one("t_min=3 t_max=9", &["t_min=3", "t_max=9"]);
    one("Soil moisture: 40 Soil temp: 12", &["Soil moisture=40", "Soil temp=12"]);
    one("A = 5 B = 6", &["A=5", "B=6"]);
    one("T=1e-3V,door=open,ip=10.0.0.2", &["T=0.001 V", "door=open"]);
    one("ts=1704110399 t=5", &["t=5 @2024-01-01T11:59:59Z"]);
    one("time=2024-01-01T11:59:59+01:00;t=5", &["t=5 @2024-01-01T10:59:59Z"]);
    one("12:30:45 link up at http://10.0.0.2:80/", &[]);
    one("{\"temp\":21.5", &[]);
    check(Format::Kv, "T=nan H=---\n", &[], (1, 0, 0));
}

#[test]
fn documents_of_many_forms() {
    let one = |line: &str, expected: &[&str]| check(Format::Json, line, expected, (1, 0, 0));
    one("{\"a\":1}{\"b\":2} {\"a\":3}", &["a=1", "b=2", "a=3"]);
    one(
        "[{\"ts\":1704110398,\"a\":1},{\"ts\":1704110399,\"a\":2},7,[8]]",
        &["a=1 @2024-01-01T11:59:58Z", "a=2 @2024-01-01T11:59:59Z", "2=7", "3.0=8"],
    );
    one("{\"a\":NaN,\"b\":-inf,\"c\":[1,nan],\"d\":\"nan \\\" inf\"}", &["c.0=1", "d=nan \" inf"]);
    one("{\"name\":\"in\",\"value\":\"1.50\",\"unit\":\"C\",\"bat\":90}", &["in=1.5 C", "bat=90"]);
    one("{\"value\":5,\"unit\":\"lx\"}", &["value=5 lx"]);
    one(
        "{\"e\":[[1,2],[3]],\"l\":18446744073709551615}",
        &["e.0.0=1", "e.0.1=2", "e.1.0=3", "l=18446744073709551615"],
    );
    one(
        "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":{\"g\":{\"h\":{\"i\":1}}}}}}}},\"j\":2}",
        &["j=2"],
    );
    for damaged in ["{\"a\":1", "{\"a\":1}x", "{\"a\":1,\"b\":NaNa}", "[1,]"] {
        check(Format::Json, damaged, &[], (0, 1, 0));
    }
    let many = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    check(Format::Json, &many(1001), &[], (0, 1, 0));
    assert_eq!(samples(Format::Json, many(1000).as_bytes(), 99).0.len(), 1000);
}

#[test]
fn columns_with_and_without_a_header() {
    check(
        Format::Csv(Csv::new(&[])),
        "temp_C;hum;note\n21.5;40;\"a;b\"\n22.0;;x\ntemp_C;hum;note\n1;2;3\n1;2\n",
        &[
            "temp=21.5 C",
            "hum=40",
            "note=a;b",
            "temp=22.0 C",
            "note=x",
            "temp=1 C",
            "hum=2",
            "note=3",
        ],
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
fn columns_survive_greetings_and_torn_rows() {
    let csv = || Format::Csv(Csv::new(&[]));
    check(
        csv(),
        "Init OK\ntemp,hum\n1,2\nBye now\n3,4\n",
        &["temp=1", "hum=2", "temp=3", "hum=4"],
        (4, 0, 1),
    );
    check(csv(), "Init OK v2\n1,2\n", &["c1=1", "c2=2"], (2, 0, 0));
    check(
        csv(),
        "5,40\n1,2,3\n1,2,3\n4,5,6\n7,8,9\n",
        &["c1=5", "c2=40", "c1=4", "c2=5", "c3=6", "c1=7", "c2=8", "c3=9"],
        (3, 2, 0),
    );
    check(
        csv(),
        "1,2\na,b\n3,4\nopen,shut\n",
        &["c1=1", "c2=2", "a=3", "b=4", "a=open", "b=shut"],
        (4, 0, 0),
    );
    check(csv(), "t_C;t_F;n\n21,5;70.7;1,5 \n", &["t=21.5 C", "t_F=70.7 F", "n=1.5"], (2, 0, 0));
    check(csv(), "time,t\n1704110399000,5\n", &["t=5 @2024-01-01T11:59:59Z"], (2, 0, 0));
    let named = Format::Csv(Csv::new(&["t (°C)".into(), "h_pct".into()]));
    check(named, "temp,hum\n1,2\n3\n", &["t=1 °C", "h=2 pct"], (2, 1, 0));
}

#[test]
fn a_port_that_is_opened_again_begins_in_the_middle() {
    let (mut decoder, mut out) = (Decoder::new(Format::Kv, None), Vec::new());
    decoder.feed(b"temp=1\r\nte", NOW, &mut out);
    decoder.restart();
    decoder.feed(b"mp=2\r\ntemp=3\r\n", NOW, &mut out);
    decoder.restart();
    decoder.feed(b"temp=4\r\n", NOW, &mut out);
    let shown: Vec<_> = out.iter().map(|s| format!("{}={}", s.metric, s.value)).collect();
    assert_eq!(shown, ["temp=1", "temp=3", "temp=4"]);
    assert_eq!(decoder.counts(), Counts { good: 3, damaged: 0, foreign: 1 });
}

#[test]
fn device_times_are_taken_when_they_can_be_true() {
    let check = |value: Value, expected: Option<i64>| {
        assert_eq!(device_time(&value, NOW), expected.map(UnixMillis), "{value:?}");
    };
    let text = |text: &str| Value::Text(text.into());
    check(Value::Int(1_704_110_399), Some(1_704_110_399_000));
    check(Value::Float(1_704_110_399.123), Some(1_704_110_399_123));
    check(Value::Int(1_704_110_399_123), Some(1_704_110_399_123));
    check(Value::Int(1_704_110_399_123_456), Some(1_704_110_399_123));
    check(Value::Int(1_704_110_400 + 300), Some(1_704_110_700_000));
    check(Value::Int(1_704_110_400 + 301), None);
    check(Value::Int(1_577_836_799), None);
    check(Value::Int(0), None);
    check(text("2024-01-01T12:00:00+01:00"), Some(1_704_106_800_000));
    check(text("2024-01-01T12:00:00"), None);
    check(Value::Bool(true), None);
}

#[test]
fn a_named_time_field_is_no_reading() {
    let (mut decoder, mut out) = (Decoder::new(Format::Json, Some("at.utc".into())), Vec::new());
    decoder.feed(b"{\"t\":1,\"ts\":5,\"at\":{\"utc\":1704110399}}\n", NOW, &mut out);
    decoder.feed(b"{\"t\":1,\"at\":{\"utc\":7}}\n", NOW, &mut out);
    let shown: Vec<_> = out.iter().map(|s| (&*s.metric, s.at.map(|at| at.0))).collect();
    let at = Some(1_704_110_399_000);
    assert_eq!(shown, [("t", at), ("ts", at), ("t", None)]);
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
    let one =
        |text: &str, line: &str, expected: &[&str]| check(pattern(text), line, expected, (1, 0, 0));
    check(pattern("*{t:C}C"), "Temp 2 is -21.5C now", &[], (0, 0, 1));
    one("*is {t:C}C*", "Temp 2 is -21.5C now", &["t=-21.5 C"]);
    one("v={v}", "v=1e-3", &["v=0.001"]);
    one("{a}|{b}|", "on|3|", &["a=on", "b=3"]);
    one("h {h:%}", "h error", &[]);
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
    let esp = "load:0x3fff0030,len:1184\nload:0x40078000,len:13232\nclock div:1\n";
    check(guess(), &format!("{esp}{{\"t\":1}}\n"), &["t=1"], (1, 0, 3));
    check(guess(), &format!("{esp}1,2\n3,4\n"), &["c1=1", "c2=2", "c1=3", "c2=4"], (2, 0, 3));
    check(guess(), "Baud: 9600\nT: 1\nT: 2\n", &["Baud=9600", "T=1", "T=2"], (3, 0, 0));
    check(guess(), "T=1\n", &["T=1"], (1, 0, 0));
    check(guess(), "mp=1\n{\"t\":1}\nT=1 H=2\n", &["t=1"], (1, 0, 2));
    check(guess(), "hello\nworld\n", &[], (0, 0, 2));
    check(guess(), &"hello\n".repeat(30), &[], (0, 0, 30));
    check(
        guess(),
        "2024-01-01T11:59:58Z,5\n2024-01-01T11:59:59Z,6\n",
        &["c1=2024-01-01T11:59:58Z", "c2=5", "c1=2024-01-01T11:59:59Z", "c2=6"],
        (2, 0, 0),
    );
    check(guess(), "1.5 2\n3 4\n", &["c1=1.5", "c2=2", "c1=3", "c2=4"], (2, 0, 0));
}

#[test]
fn payloads_of_messages() {
    let read = |payload: &[u8]| {
        let (mut context, mut out) = (Context::default(), Vec::new());
        context.now = NOW;
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
    assert_eq!(read(b"{\"value\":1,\"unit\":\"C\"}"), (Outcome::Good, vec!["m.value=1".into()]));
    assert_eq!(read(b"12.3\x01"), damaged("a payload that is no value"));
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
    let metrics: topic::Template = "farm/{device}/{metric...}".parse().unwrap();
    assert_eq!(metrics.filter(), "farm/+/#");
    assert_eq!(metrics.read("farm/a/b/c").unwrap().metric, Some("b/c"));
    assert_eq!(metrics.read("farm/a").unwrap().metric, None);
    for text in [
        "a/{metric}/{metric...}",
        "{metric...}/a",
        "a/#/b",
        "a/{device}/{device}",
        "a/x{device}",
        "a/b+",
    ] {
        assert!(text.parse::<topic::Template>().is_err(), "{text}");
    }
}

#[test]
fn half_of_a_decimal_comma_is_no_value() {
    check(Format::Kv, "temp=21,5;hum=40\nacc=1,2,3\n", &["hum=40"], (1, 0, 1));
    check(Format::Kv, "a=1,b=2, 3\n", &["a=1", "b=2"], (1, 0, 0));
}

#[test]
fn prose_before_a_label_costs_no_reading() {
    check(
        Format::Kv,
        "I (29) main: temp: 21.5\nmac: aa:bb:cc:dd:ee:01\n",
        &["temp=21.5"],
        (1, 0, 1),
    );
    let guess = Format::Guess(Guess::default());
    check(guess, "INFO: temp: 21.5\nINFO: temp: 22.5\n", &["temp=21.5", "temp=22.5"], (2, 0, 0));
    check(Format::Json, "[INFO] up\n[1,]\n", &[], (0, 1, 1));
}

#[test]
fn a_header_may_end_with_a_separator() {
    let text = "temp_C;hum;\n21.5;40;\ntemp_C;hum;\n22;41;\n";
    let expected = ["temp=21.5 C", "hum=40", "temp=22 C", "hum=41"];
    check(Format::Csv(Csv::new(&[])), text, &expected, (4, 0, 0));
    check(Format::Guess(Guess::default()), text, &expected, (4, 0, 0));
}

#[test]
fn rows_of_words_are_read_where_the_columns_are_configured() {
    let csv = || Format::Csv(Csv::new(&["door".into(), "lock".into()]));
    check(
        csv(),
        "d,l\nopen,off\nopen,off\n",
        &["door=open", "lock=off", "door=open", "lock=off"],
        (3, 0, 0),
    );
    check(csv(), "d,l\n1,2\nd,l\nbrown out\n", &["door=1", "lock=2"], (3, 0, 1));
}

#[test]
fn a_unit_belongs_to_the_value_beside_it_at_any_depth() {
    let text = "{\"t\":{\"unit\":\"C\",\"value\":3,\"unix\":1},\"h\":{\"value\":4}}\n{\"value\":1,\"unit\":7}\n";
    let expected = ["t.value=3 C", "t.unix=1", "h.value=4", "value=1", "unit=7"];
    check(Format::Json, text, &expected, (2, 0, 0));
}

#[test]
fn words_of_patterns_may_begin_with_digits() {
    let check = |pattern: &str, line: &str, expected: &[&str]| {
        check(Format::Pattern(pattern.parse().unwrap()), line, expected, (1, 0, 0));
    };
    check("{time} T={t}", "2024-01-01T11:59:59Z T=5", &["t=5 @2024-01-01T11:59:59Z"]);
    check("S{id}:{n}", "S4f3a:-1.5e3", &["id=4f3a", "n=-1500.0"]);
    check("{a}-{b} {c}", "1-2 3", &["a=1", "b=2", "c=3"]);
    check("{hum:%} {temp} {u}", "40% 21.5C 3.3 V", &["hum=40 %", "temp=21.5 C", "u=3.3"]);
    check("{t}°C*{h}*", "21.5°C, 40|x", &["t=21.5", "h=40"]);
}
