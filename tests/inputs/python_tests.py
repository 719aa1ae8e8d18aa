# CPython's own tests: argv[1] is the command that stands for sys.executable in tests that start a
# child, the rest are modules of the package test. Prints what each gave, in counts.
import io, sys, unittest

sys.executable = sys.argv[1]
for name in sys.argv[2:]:
    stream = io.StringIO()
    suite = unittest.defaultTestLoader.loadTestsFromName("test." + name)
    result = unittest.TextTestRunner(stream=stream, verbosity=0).run(suite)
    print(
        f"{name}: ran {result.testsRun}, failures {len(result.failures)}, errors {len(result.errors)}, "
        f"skipped {len(result.skipped)}, expected failures {len(result.expectedFailures)}, "
        f"unexpected successes {len(result.unexpectedSuccesses)}",
        flush=True,
    )
    for test, trace in result.failures + result.errors:
        print(f"{name}: {test}\n{trace}", file=sys.stderr)
