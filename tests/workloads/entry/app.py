# A Lambda function.
import os, time
count = 0
os.write(1, b'init\n')
assert not os.path.exists('/shared/broken'), 'broken'
def handler(event, context):
    global count
    count += 1
    os.write(1, b'handled\n')
    if 'fail' in event: raise ValueError(event['fail'])
    if 'sleep' in event: time.sleep(event['sleep'])
    if 'size' in event: return 'x' * event['size']
    return {
        'count': count, 'len': len(event.get('text', '')), 'id': context.aws_request_id,
        'left': context.get_remaining_time_in_millis(), 'arn': context.invoked_function_arn,
        'trace': os.environ['_X_AMZN_TRACE_ID'],
    }
