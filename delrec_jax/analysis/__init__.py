import logging

# Where no folder for its settings can be made, as without a home, matplotlib says so at length on each start and works.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
