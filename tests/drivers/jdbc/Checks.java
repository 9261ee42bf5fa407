// What the suites in Java share: how checks are run, each within its time, and how they fail.

import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

abstract class Checks {
    static final int CHECK_SECONDS = 60;

    interface Check {
        void run() throws Exception;
    }

    /** Runs all of them, or those that are named, says what came of each, and ends the program. */
    static void runAll(Map<String, Check> checks, String... only) {
        if (only.length > 0) {
            checks.keySet().retainAll(List.of(only));
        }
        int failed = 0;
        for (Map.Entry<String, Check> check : checks.entrySet()) {
            ExecutorService executor = Executors.newSingleThreadExecutor();
            Future<Void> running = executor.submit(() -> {
                check.getValue().run();
                return null;
            });
            try {
                running.get(CHECK_SECONDS, TimeUnit.SECONDS);
                System.out.println("ok " + check.getKey());
            } catch (Exception error) {
                Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
                System.out.println("not ok " + check.getKey() + ": " + String.valueOf(cause).replace('\n', ' '));
                cause.printStackTrace();
                failed++;
            }
            executor.shutdownNow();
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    static void must(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    static void same(Object got, Object wanted) {
        must(Objects.deepEquals(got, wanted), got + " instead of " + wanted);
    }
}
