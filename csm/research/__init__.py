"""Research questions: what each trains and measures, and a verdict by a rule that is stated beforehand."""
