// Agents: selection.
