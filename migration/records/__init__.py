"""Records of an old information system (patients, exams, reports): read, mapped, matched, taken, proven."""
