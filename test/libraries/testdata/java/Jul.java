import java.util.logging.*;

/** Jul PATTERN COUNT: logs COUNT lines with the FileHandler of the JDK, in several files. */
public class Jul {
    public static void main(String[] args) throws java.io.IOException {
        var handler = new FileHandler(args[0], 1_000_000, 100, true);
        handler.setFormatter(new Formatter() {
            public String format(LogRecord record) {
                return record.getMessage() + "\n";
            }
        });
        var log = Logger.getLogger("app");
        log.setUseParentHandlers(false);
        log.addHandler(handler);
        for (int i = 1; i <= Integer.parseInt(args[1]); i++) {
            log.info("line " + i + " " + ("" + i).repeat(990).substring(0, 990));
        }
        handler.close();
    }
}
