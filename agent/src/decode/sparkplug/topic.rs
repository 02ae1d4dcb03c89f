//! Topics: `spBv1.0/group/TYPE/node[/device]`.

use super::NAMESPACE;

/// A topic of a node or a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic<'t> {
    /// All of it.
    pub whole: &'t str,
    /// What its messages are.
    pub kind: Kind,
    /// The node's group.
    pub group: &'t str,
    /// The node.
    pub node: &'t str,
    /// The device, where the message is one of a device.
    pub device: Option<&'t str>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All that a node or a device has.
    Birth,
    /// Some values.
    Data,
    /// It is gone.
    Death,
}

impl<'t> Topic<'t> {
    /// Reads a topic; `None` when it is none that a node writes.
    #[must_use]
    pub fn read(whole: &'t str) -> Option<Self> {
        let mut levels = whole.split('/');
        if levels.next() != Some(NAMESPACE) {
            return None;
        }
        let (group, kind, node) = (levels.next()?, levels.next()?, levels.next()?);
        let (of_device, kind) = match kind {
            "NBIRTH" => (false, Kind::Birth),
            "NDATA" => (false, Kind::Data),
            "NDEATH" => (false, Kind::Death),
            "DBIRTH" => (true, Kind::Birth),
            "DDATA" => (true, Kind::Data),
            "DDEATH" => (true, Kind::Death),
            _ => return None,
        };
        let device = levels.next();
        let is_whole = device.is_some() == of_device && levels.next().is_none();
        let is_named = ![Some(group), Some(node), device].contains(&Some(""));
        (is_whole && is_named).then_some(Self { whole, kind, group, node, device })
    }
}

/// Returns what a host subscribes to for the nodes of a group; `+` stands for all groups.
pub fn filters(group: &str) -> impl Iterator<Item = String> {
    let of_nodes =
        ["NBIRTH", "NDATA", "NDEATH"].map(|kind| format!("{NAMESPACE}/{group}/{kind}/+"));
    let of_devices =
        ["DBIRTH", "DDATA", "DDEATH"].map(|kind| format!("{NAMESPACE}/{group}/{kind}/+/+"));
    of_nodes.into_iter().chain(of_devices)
}

/// Returns where a node takes commands.
#[must_use]
pub fn command(group: &str, node: &str) -> String {
    format!("{NAMESPACE}/{group}/NCMD/{node}")
}

/// Returns where a host says whether it is there.
#[must_use]
pub fn state(host_id: &str) -> String {
    format!("{NAMESPACE}/STATE/{host_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_names_node_and_device() {
        let check = |topic, expected: Option<(Kind, Option<&'static str>)>| {
            let read = Topic::read(topic);
            assert_eq!(read.map(|topic| (topic.kind, topic.device)), expected, "{topic}");
            assert!(read.is_none_or(|topic| (topic.group, topic.node) == ("Plant 1", "gw-7")));
        };
        check("spBv1.0/Plant 1/NBIRTH/gw-7", Some((Kind::Birth, None)));
        check("spBv1.0/Plant 1/DDATA/gw-7/boiler", Some((Kind::Data, Some("boiler"))));
        check("spBv1.0/Plant 1/DDEATH/gw-7/boiler", Some((Kind::Death, Some("boiler"))));
        for other in [
            "spBv1.0/Plant 1/NBIRTH/gw-7/boiler",
            "spBv1.0/Plant 1/DDATA/gw-7",
            "spBv1.0/Plant 1/DDATA/gw-7/boiler/more",
            "spBv1.0/Plant 1/DDATA/gw-7/",
            "spBv1.0//NDATA/gw-7",
            "spBv1.0/Plant 1/NCMD/gw-7",
            "spBv1.0/STATE/scada",
            "spAv1.0/Plant 1/NDATA/gw-7",
            "",
        ] {
            check(other, None);
        }
    }
}
