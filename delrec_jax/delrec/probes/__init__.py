"""What did the soft prompt learn? Each module asks a finished run one question; `probing` asks them all."""
