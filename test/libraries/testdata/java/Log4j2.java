import org.apache.logging.log4j.LogManager;

/** Log4j2 COUNT: logs COUNT lines as the configuration says. */
public class Log4j2 {
    public static void main(String[] args) {
        var log = LogManager.getLogger(Log4j2.class);
        for (int i = 1; i <= Integer.parseInt(args[0]); i++) {
            log.info("line {} {}", i, ("" + i).repeat(990).substring(0, 990));
        }
        LogManager.shutdown();
    }
}
