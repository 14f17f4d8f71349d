"""Coercion: images whose attributes are put right as they come, by rules of the configuration (`Coercions`).

    attributes  what a rule may name
    rules       which rules an image meets, and why
    steps       what a rule does to the values
    coercing    what becomes of it: bytes in, bytes out
    declared    what a migration's plan changes in one study, as a rule
    orders      the worklist, from which attributes may be taken
    envelope    how the gateway's coercing port hands over what it got, and from whom

All pure. pydicom is loaded with the first five alone: who has no rule doesn't load them.
"""
