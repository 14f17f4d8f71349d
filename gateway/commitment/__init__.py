"""Storage commitment (DICOM PS3.4 J): modalities ask whether their images are safe, and are told the truth.

requests    the N-ACTION: read, checked, committed before it is answered
verdicts    of each instance: safe, not there yet, or not safe and why; pure
reporting   the N-EVENT-REPORT: what it says, and bringing it to the modality
worker      from the one to the other, through a durable queue
elsewhere   requests at Orthanc's own port, which answers from its index alone: seen and warned of
"""
