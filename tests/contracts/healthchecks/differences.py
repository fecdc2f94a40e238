"""What Lifesign does otherwise than Healthchecks, on purpose. What is not listed here is a defect.

The numbers are those of `docs/reference/pings.md`, "What differs". Each is used by a step of the script, which tells
the answer of either server.
"""

DIFFERENCES = {
    1: "A body that is not UTF-8, or is cut within a character, is taken and kept as it came, keywords or not.",
    2: "Garbage in `X-Forwarded-For` is ignored.",
    3: "Slugs are unique: an explicit duplicate is refused, one from a name is numbered, and none is ambiguous.",
    4: "Creating by ping takes a period, a grace, a schedule, a zone and tags, and a bad part of it makes nothing.",
    5: "Tags that are too long are refused in words.",
    6: "The same run id with the same signal, soon after, is one ping.",
    7: "What is forbidden, not found, not allowed or in conflict is told as JSON, and so is a bad filter of flips.",
    8: "OPTIONS on a ping URL counts nothing.",
    9: "Bodies between 2.5 and 10 MiB are taken.",
    10: "Keys have another form and length, and their case does not matter in a ping URL.",
    11: "A change of the timing makes no check go down at that moment.",
    12: "Tags are kept once each, with one blank between them.",
    13: "An acknowledged outage reads as up until the next deadline.",
    14: "Nobody is declared down for time in which the server could not listen.",
    15: "A run that a ping began may always take 60 s.",
    16: "Messages are delivered at least once, each channel by itself, from rows that are written with the change.",
    17: "Sign-in and status pages, teams and screens of integrations are not part of this surface.",
    18: "Answers may have more members: the exit status of a ping, the policy of a check, the cursor of a page.",
    19: "While a run is open, the next ping is still expected when it was; there, when the run began.",
    20: "A success or a failure without a run id is timed from the latest start, whatever the run id of that.",
    21: "A boolean is no number.",
    22: "Of several faults another may be told than there, where it is the first in the alphabet.",
    23: "Slugs are chosen in version 3 only.",
    24: "With a good key, a slug that cannot be one is told as such.",
    25: "Blanks around the names of channels do not matter.",
    26: "Blanks of a schedule are folded.",
    27: "Prometheus: a missing or wrong key is 401, and a key sees its own project's page only.",
    28: "Keywords judge what comes to the bare URL; one that says what it means is taken at its word.",
    29: "A list is also found without the slash at its end.",
}
