"""Where HTTP ends: a head becomes a decision, the decision a call of the domain, its result an answer."""
