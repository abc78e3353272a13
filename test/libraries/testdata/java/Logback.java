import org.slf4j.LoggerFactory;

/** Logback COUNT: logs COUNT lines as the configuration says. */
public class Logback {
    public static void main(String[] args) throws InterruptedException {
        var log = LoggerFactory.getLogger(Logback.class);
        for (int i = 1; i <= Integer.parseInt(args[0]); i++) {
            log.info("line {} {}", i, ("" + i).repeat(990).substring(0, 990));
            // It looks at the size now and then only.
            if (i % 100 == 0) {
                Thread.sleep(20);
            }
        }
        ((ch.qos.logback.classic.LoggerContext) LoggerFactory.getILoggerFactory()).stop();
    }
}
