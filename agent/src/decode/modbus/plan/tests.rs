use proptest::prelude::*;

use super::{super::Table, *};

fn registers(lines: &[&str]) -> Vec<Register> {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

fn shown(plan: &Plan) -> Vec<String> {
    let show = |block: &Block| {
        let Span { table, first, count } = block.span;
        let names = block.registers.iter().map(|register| &*register.metric).collect::<String>();
        format!("{} {first}+{count} {names}", table.as_str())
    };
    plan.blocks.iter().map(show).collect()
}

#[test]
fn what_lies_together_is_read_together() {
    let check = |lines: &[&str], expected: &[&str]| {
        assert_eq!(shown(&Plan::new(registers(lines))), expected, "{lines:?}");
    };
    check(&["a holding 0 u16", "b holding 1 f32"], &["holding 0+3 ab"]);
    check(&["b holding 18 u16", "a holding 0 u32"], &["holding 0+19 ab"]);
    check(&["a holding 0 u16", "b holding 18 u16"], &["holding 0+1 a", "holding 18+1 b"]);
    check(&["a holding 0 u16", "b input 1 u16"], &["input 1+1 b", "holding 0+1 a"]);
    check(&["a holding 5 bit 0", "b holding 5 bit 1"], &["holding 5+1 ab"]);
    check(&["a holding 0 u64", "b holding 1 u16"], &["holding 0+4 ab"]);
    check(
        &["a holding 0 text 120", "b holding 120 u64", "c holding 124 u16"],
        &["holding 0+125 abc"],
    );
    check(&["a holding 0 text 120", "b holding 124 u32"], &["holding 0+120 a", "holding 124+2 b"]);
    check(&["a coil 0", "b coil 200", "c coil 1999"], &["coil 0+201 ab", "coil 1999+1 c"]);
    check(&["a holding 65535 u16", "b holding 65530 u16"], &["holding 65530+6 ba"]);
    check(&[], &[]);
}

#[test]
fn a_refused_block_is_split_at_its_widest_hole_then_in_the_middle() {
    let lines = ["a holding 0 u16", "b holding 1 u16", "c holding 5 u16", "d holding 6 u16"];
    let mut plan = Plan::new(registers(&lines));
    assert_eq!(plan.split(0), Some(Split::Smaller));
    assert_eq!(shown(&plan), ["holding 0+2 ab", "holding 5+2 cd"]);
    assert_eq!(plan.split(1), Some(Split::Smaller));
    assert_eq!(shown(&plan), ["holding 0+2 ab", "holding 5+1 c", "holding 6+1 d"]);
    let refused = registers(&lines).remove(2);
    assert_eq!(plan.split(1), Some(Split::Refused(refused.clone())));
    assert_eq!(shown(&plan), ["holding 0+2 ab", "holding 6+1 d"]);
    plan.retry([refused]);
    assert_eq!(shown(&plan), ["holding 0+2 ab", "holding 6+1 d", "holding 5+1 c"]);
    assert_eq!(plan.split(9), None);
    let mut plan = Plan::new(registers(&["a holding 0 u16", "b holding 1 u16", "c holding 2 u16"]));
    plan.split(0);
    assert_eq!(shown(&plan), ["holding 0+1 a", "holding 1+2 bc"]);
}

fn any_registers() -> impl Strategy<Value = Vec<Register>> {
    let table = prop::sample::select(&["coil", "input", "holding"][..]);
    let kind = prop::sample::select(&["u16", "f32", "u64", "text 9"][..]);
    let line = (table, 0..3000_u16, kind).prop_map(|(table, address, kind)| {
        let kind = if table == "coil" { "bool" } else { kind };
        format!("a {table} {address} {kind}").parse().unwrap()
    });
    prop::collection::vec(line, 0..60)
}

/// Every register stands in exactly one block, which holds all of it.
fn check_covers(plan: &Plan, count: usize) {
    assert_eq!(plan.blocks.iter().map(|block| block.registers.len()).sum::<usize>(), count);
    for Block { span, registers, .. } in &plan.blocks {
        assert!(span.count <= span.table.most(), "{span:?}");
        for register in registers {
            assert_eq!(register.span.table, span.table);
            assert!(register.span.first >= span.first && end(register.span) <= end(*span));
        }
    }
}

proptest! {
    #[test]
    fn a_plan_covers_all_registers(registers in any_registers()) {
        check_covers(&Plan::new(registers.clone()), registers.len());
    }

    #[test]
    fn splitting_ends_with_what_a_device_has(registers in any_registers(), missing in 0..3000_u16) {
        let refuses = |span: Span| {
            span.table == Table::Holding && span.first <= missing && u32::from(missing) < end(span)
        };
        let lost = registers.iter().filter(|register| refuses(register.span)).count();
        let count = registers.len();
        let mut plan = Plan::new(registers);
        while let Some(place) = plan.blocks.iter().position(|block| refuses(block.span)) {
            plan.split(place);
        }
        check_covers(&plan, count - lost);
    }
}
