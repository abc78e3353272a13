# log.py HANDLER FILE COUNT: logs COUNT lines with one of Python's rotating handlers.
import logging, logging.handlers, os, sys, time

handler, file, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
external = lambda i: None
if handler == 'RotatingFileHandler':
    h = logging.handlers.RotatingFileHandler(file, maxBytes=1_000_000, backupCount=100)
elif handler == 'TimedRotatingFileHandler':
    h = logging.handlers.TimedRotatingFileHandler(file, when='S', backupCount=100)
    external = lambda i: time.sleep(0.001)
elif handler == 'WatchedFileHandler':
    # It reopens its file when something else has renamed it, as logrotate does with "create".
    h = logging.handlers.WatchedFileHandler(file)
    def external(i):
        if i % 1000 == 0:
            os.rename(file, f'{file}.{i}')
else:
    sys.exit(f'no handler {handler}')
log = logging.getLogger()
log.addHandler(h)
log.setLevel(logging.INFO)
for i in range(1, count + 1):
    log.info('line %d %s', i, (str(i) * 990)[:990])
    external(i)
