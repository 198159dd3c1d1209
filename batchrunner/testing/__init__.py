"""What the tests are made of: contract suites, fakes, servers and faults, for your tests too."""
