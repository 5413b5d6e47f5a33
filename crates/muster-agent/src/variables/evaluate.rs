//! Evaluation of conditions.

use muster_core::error_chain::chain;
use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::Scope;
use super::condition::{Expression, Function, Operand, Operator};

/// Maximum size of a compiled regular expression, and maximum length of a text made by `concat`.
const TEXT_MAX: usize = 64 << 10;

/// Evaluates a condition. An error describes an operation that is not possible with the values of this host.
pub fn is_true(expression: &Expression, scope: Scope<'_>) -> Result<bool, String> {
    boolean(&value(expression, scope)?)
}

fn value(expression: &Expression, scope: Scope<'_>) -> Result<Value, String> {
    match expression {
        Expression::Constant(value) => Ok(value.clone()),
        Expression::Variable(operands) => Ok(operands.iter().find_map(|one| resolve(one, scope)).unwrap_or_default()),
        Expression::Not(inner) => Ok((!boolean(&value(inner, scope)?)?).into()),
        // The right side is not evaluated if the left one decides.
        Expression::Binary(Operator::Or, left, right) => Ok((is_true(left, scope)? || is_true(right, scope)?).into()),
        Expression::Binary(Operator::And, left, right) => Ok((is_true(left, scope)? && is_true(right, scope)?).into()),
        Expression::Binary(operator, left, right) => binary(*operator, &value(left, scope)?, &value(right, scope)?),
        Expression::Call(function, arguments) => {
            let arguments: Result<Vec<_>, _> = arguments.iter().map(|argument| value(argument, scope)).collect();
            call(*function, &arguments?)
        }
    }
}

fn resolve(operand: &Operand, scope: Scope<'_>) -> Option<Value> {
    match operand {
        Operand::Name(name) => scope.get(name).cloned(),
        Operand::Constant(value) => Some(value.clone()),
    }
}

fn binary(operator: Operator, left: &Value, right: &Value) -> Result<Value, String> {
    let ordered = |wanted: fn(Ordering) -> bool| compare(left, right).map(|order| wanted(order).into());
    match operator {
        Operator::Equal => Ok(equal(left, right).into()),
        Operator::Unequal => Ok((!equal(left, right)).into()),
        Operator::Less => ordered(Ordering::is_lt),
        Operator::AtMost => ordered(Ordering::is_le),
        Operator::Greater => ordered(Ordering::is_gt),
        Operator::AtLeast => ordered(Ordering::is_ge),
        Operator::Add => arithmetic(Function::Add, left, right),
        Operator::Subtract => arithmetic(Function::Subtract, left, right),
        Operator::Multiply => arithmetic(Function::Multiply, left, right),
        Operator::Divide => arithmetic(Function::Divide, left, right),
        Operator::Modulo => arithmetic(Function::Modulo, left, right),
        // Evaluated by the caller, which does not need the right side if the left one decides.
        Operator::And | Operator::Or => Ok((boolean(left)? || boolean(right)?).into()),
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    // As numbers, so that 1 and 1.0 are equal.
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right).is_eq(),
        _ => left == right,
    }
}

fn compare(left: &Value, right: &Value) -> Result<Ordering, String> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Ok(left.cmp(right)),
        _ => Ok(float(left)?.total_cmp(&float(right)?)),
    }
}

fn arithmetic(function: Function, left: &Value, right: &Value) -> Result<Value, String> {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        let whole = match function {
            Function::Add => left.checked_add(right),
            Function::Subtract => left.checked_sub(right),
            Function::Multiply => left.checked_mul(right),
            Function::Divide => left.checked_div(right),
            _ => left.checked_rem(right),
        };
        return whole.map(Value::from).ok_or_else(|| "division by zero, or a number is too large".into());
    }
    let (left, right) = (float(left)?, float(right)?);
    let result = match function {
        Function::Add => left + right,
        Function::Subtract => left - right,
        Function::Multiply => left * right,
        Function::Divide => left / right,
        _ => return Err("modulo of a number that is not an integer".into()),
    };
    Number::from_f64(result).map(Value::Number).ok_or_else(|| "division by zero, or a number is too large".into())
}

fn call(function: Function, arguments: &[Value]) -> Result<Value, String> {
    let at = |place: usize| arguments.get(place).ok_or_else(|| format!("{function:?} needs more arguments"));
    let any = |test: &dyn Fn(&str, &str) -> bool| -> Result<Value, String> {
        let text = text(at(0)?)?;
        let rest: Result<Vec<_>, _> = arguments.iter().skip(1).map(self::text).collect();
        Ok(rest?.iter().any(|part| test(text, part)).into())
    };
    match function {
        Function::Add | Function::Subtract | Function::Multiply | Function::Divide | Function::Modulo => {
            arithmetic(function, at(0)?, at(1)?)
        }
        Function::ArrayContains => {
            let list = at(0)?.as_array().ok_or("arrayContains needs a list")?;
            Ok(arguments[1..].iter().any(|wanted| list.iter().any(|item| equal(item, wanted))).into())
        }
        Function::HasKey => {
            let fields = at(0)?.as_object().ok_or("hasKey needs a dictionary")?;
            let keys: Result<Vec<_>, _> = arguments.iter().skip(1).map(text).collect();
            Ok(keys?.iter().any(|key| fields.contains_key(*key)).into())
        }
        Function::Exists => Ok((!at(0)?.is_null()).into()),
        Function::StartsWith => any(&|text, part| text.starts_with(part)),
        Function::EndsWith => any(&|text, part| text.ends_with(part)),
        Function::StringContains => any(&|text, part| text.contains(part)),
        Function::Match => matches(at(0)?, &arguments[1..]),
        Function::IndexOf => {
            let (text, part) = (text(at(0)?)?, text(at(1)?)?);
            // In characters; -1 means that there is none.
            let place = text.find(part).map_or(-1, |byte| text[..byte].chars().count().try_into().unwrap_or(-1));
            Ok(place.into())
        }
        Function::Length => length(at(0)?),
        Function::Concat => {
            let whole: String = arguments.iter().map(shown).collect();
            if whole.len() > TEXT_MAX { Err("the result of concat is too long".into()) } else { Ok(whole.into()) }
        }
        Function::String => Ok(shown(at(0)?).into()),
        Function::Number => match at(0)? {
            Value::String(text) => {
                text.trim().parse::<i64>().map(Value::from).map_err(|error| chain(&error).to_string())
            }
            other => Ok(other.clone()),
        },
    }
}

fn matches(text: &Value, patterns: &[Value]) -> Result<Value, String> {
    let text = self::text(text)?;
    for pattern in patterns {
        // Linear in the length of the text for every pattern; the limit is on memory.
        let pattern = regex_lite::RegexBuilder::new(self::text(pattern)?).size_limit(TEXT_MAX).build();
        if pattern.map_err(|error| chain(&error).to_string())?.is_match(text) {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::Null => 0,
        _ => return Err("length needs a string, a list or a dictionary".into()),
    };
    Ok(length.into())
}

fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        // A variable without a value: the condition does not hold on this host.
        Value::Null => Ok(false),
        other => Err(format!("{other} is not a boolean")),
    }
}

fn float(value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("{value} is not a number"))
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{value} is not a string"))
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::variables::{VariableSets, condition};

    fn holds(text: &str) -> Result<bool, String> {
        let context = json!({"env": {"A": "x", "N": 5}, "local": {"on": true},
            "host": {"platform": "linux", "name": "web-12", "ip": ["10.0.0.1", "::1"], "labels": {"a": 1}}});
        let sets = VariableSets { context: context.as_object().unwrap().clone(), dynamic: Vec::new() };
        is_true(&condition::parse(text)?, sets.context())
    }

    #[test]
    fn conditions_have_their_value_on_this_host() {
        for text in [
            "true",
            "${host.platform} == 'linux'",
            "${env.NONE|host.name|'fallback'} == \"web-12\"",
            "not (${host.platform} == 'windows' or false)",
            "NOT false AND TRUE",
            "${local.on}",
            "not ${local.off}",
            "4 * (5 + 3) == 32 and 10 - 4 / 2 % 3 == 8",
            "2.5 >= ${env.N|2} or ${env.N} == 5.0",
            "arrayContains(${host.ip}, 'x', '::1')",
            "arrayContains([true, 1, 3.5, 'str'], 3.5)",
            "hasKey({key1: 'val1', 'key2': 2}, 'key2') and hasKey(${host.labels}, 'a')",
            "length(${host.ip}) == 2 and length([]) == length({})",
            "startsWith(concat('a', string(2)), 'b', 'a2')",
            "exists(${env.A}) and not exists(${env.B})",
            "match(${host.name}, '^db', '^web-[0-9]+$')",
            "indexOf('hello', 'l') == 2 and number('12') + 1 == 13",
            "'a' < 'b' and endsWith('ab', 'b') and stringContains('abc', 'b')",
            "${env.NONE} != 'x'",
            "false or true and true",
        ] {
            assert_eq!(holds(text), Ok(true), "{text}");
        }
        for text in ["${env.NONE}", "${env.N} == '5'", "match('a', 'b')", "1 > 2", "${host.platform} == 'windows'"] {
            assert_eq!(holds(text), Ok(false), "{text}");
        }
    }

    #[test]
    fn an_impossible_operation_is_an_error() {
        for text in [
            "",
            "1 / 0 == 1",
            "'a' and true",
            "1 < 'a'",
            "match('a', '(')",
            "startsWith(1, 'a')",
            "1 + 'a' == 2",
            "nope()",
            "${a",
            "add(1)",
            "arrayContains('a', 'b')",
            "5-3 == 2",
            "true false",
            "hasKey([], 'a')",
            "length(5) == 1",
        ] {
            assert!(holds(text).is_err(), "{text}");
        }
        assert!(condition::parse(&"(".repeat(10_000)).is_err());
        assert!(condition::parse(&format!("{}true", "not ".repeat(10_000))).is_err());
    }

    proptest! {
        #[test]
        fn any_condition_is_evaluated_without_a_panic(text in "[-a-z0-9 ${}|.'\"()=<!,\\[\\]:+*/%é]{0,40}") {
            let _ = holds(&text);
        }
    }
}
