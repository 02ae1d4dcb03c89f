use super::*;

fn check(source: &str, payload: &str, expected: Result<Option<Value>, &str>) {
    let template = Template::parse(source).unwrap();
    let payload = Payload::new(payload.as_bytes()).unwrap();
    assert_eq!(Engine::default().value(&template, &payload), expected, "{source}");
}

fn text(text: &str) -> Result<Option<Value>, &'static str> {
    Ok(Some(Value::Text(text.into())))
}

#[test]
fn fields_are_read_without_the_engine() {
    for source in [
        "{{ value_json.t }}",
        "{{value_json['t']}}",
        "{{ value_json[\"t\"] }}",
        "{{ value_json.t | float }}",
        "{{ value_json.t|is_defined }}",
    ] {
        let template = Template::parse(source).unwrap();
        assert_eq!(template, Template::Field(vec!["t".into()]), "{source}");
        check(source, r#"{"t":21.5}"#, Ok(Some(Value::Float(21.5))));
        check(source, r#"{"t":"21.5"}"#, Ok(Some(Value::Float(21.5))));
        check(source, r#"{"t":null}"#, Ok(None));
        check(source, r#"{"t":{}}"#, Ok(None));
        check(source, r#"{"u":1}"#, Ok(None));
        check(source, "21.5", Ok(None));
        check(source, "{", Err("a payload that is no JSON"));
    }
    check("{{ value_json['DHT 11'].t[1] }}", r#"{"DHT 11":{"t":[1,2]}}"#, Ok(Some(2.into())));
    check("{{ value }}", "21.5", Ok(Some(Value::Float(21.5))));
    check("{{ value }}", "unavailable", Ok(None));
    check("{{ value }}", "[1,2]", Ok(None));
}

#[test]
fn expressions_are_computed() {
    let document = r#"{"t":215,"s":"12.34","on":true,"m":2,"l":[1,2]}"#;
    let float = |number| Ok(Some(Value::Float(number)));
    check("{{ value_json.t / 10 }}", document, float(21.5));
    check("{{ (value_json.t | float / 10) | round(1) }}", document, float(21.5));
    check("{{ float(value_json.s) * 2 }}", document, float(24.68));
    check("{{ value_json.s | round }}", document, Ok(Some(12.into())));
    check("{{ value_json.s | int }}", document, Ok(Some(12.into())));
    check("{{ value_json.t | multiply(0.1) | round(1) }}", document, float(21.5));
    check("{{ value_json.on | iif('ON', 'OFF') }}", document, text("ON"));
    check("{{ 'ON' if value_json.on else 'OFF' }}", document, text("ON"));
    check("{{ {1: 'heat', 2: 'cool'}[value_json.m] | default('off') }}", document, text("cool"));
    check("{% if value_json.t > 200 %}hot{% else %}cold{% endif %}", document, text("hot"));
    check("{% if value_json.x is defined %}{{ value_json.x }}{% endif %}", document, Ok(None));
    check("{{ value_json.x.y | float(0) }}", document, Ok(Some(0.into())));
    // Home Assistant says so to its user for each message; here it is simply not there.
    check("{{ value_json.x.y | float * 2 }}", document, Ok(None));
    check("{{ value | float / 100 }}", "250", float(2.5));
}

#[test]
fn what_fails_is_said_and_what_could_grow_is_refused() {
    let fails = || Err("a value_template that fails");
    check("{{ value_json.t | no_such_filter }}", r#"{"t":1}"#, fails());
    check("{{ value_json.t | float }} {{", r#"{"t":1}"#, fails());
    check("{{ value_json.t | float * 2 }}", r#"{"t":"warm"}"#, fails());
    check("{{ 'x' * 1000000000000 }}", "1", fails());
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(900), ")".repeat(900));
    check(&deep, "1", fails());
    for source in [
        "{% for a in range(9) %}{% endfor %}",
        "{%- set a = 'x' ~ 'x' %}",
        "{% macro m() %}{{ m() }}{% endmacro %}",
        "{% include 'a' %}",
    ] {
        assert_eq!(Template::parse(source), Err(TemplateError::Tag), "{source}");
    }
    assert_eq!(Template::parse(&"x".repeat(2049)), Err(TemplateError::TooLong));
    assert!(Payload::new(&[b'['; MAX_PAYLOAD_BYTES + 1]).is_none());
    check("{{ value_json.t }}", &"[".repeat(60_000), Err("a payload that is no JSON"));
}
