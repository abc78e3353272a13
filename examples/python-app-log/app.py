import logging
import os
import time
import urllib.request

logging.basicConfig(filename='/app/app.log', level=logging.INFO, format='%(asctime)s - %(levelname)s - %(message)s')

url = os.environ['URL']

while True:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            logging.info('Request successful: %s', response.status)
    except Exception as error:
        logging.error('Request failed: %s', error)
    time.sleep(1)
