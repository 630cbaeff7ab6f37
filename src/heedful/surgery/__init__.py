"""Put modules into a network that exists, in place and all or nothing; knows modules, not our layers."""
