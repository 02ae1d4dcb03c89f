//! Sparkplug B: edge nodes, a real broker, and the agent as their host.
