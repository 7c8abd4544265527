"""Generated from edgeway/v1/control.proto by protos/generate.py: do not edit."""

from google.protobuf.message_factory import GetMessageClass

from edgeway.v1.pool import POOL
from edgeway.v1.service import Method

_FILE = POOL.AddSerializedFile(
    b'\n\x18edgeway/v1/control.proto\x12\nedgeway.v1"a\n\x0cApplyRequest\x12\x1c\n\tmanifests\x18\x01 \x03(\tR\tmanifests\x123\n\x06signed\x18\x02'
    b' \x03(\x0b2\x1b.edgeway.v1.SignedManifestsR\x06signed"y\n\x0fSignedManifests\x12\x18\n\x07content\x18\x01 \x01(\x0cR\x07content\x12\x1c\n\tsignat'
    b'ure\x18\x02 \x01(\x0cR\tsignature\x12\x16\n\x06folder\x18\x03 \x01(\tR\x06folder\x12\x16\n\x06source\x18\x04 \x01(\tR\x06source"Z\n\rApplyResponse\x12-\n\x07applied'
    b'\x18\x01 \x03(\x0b2\x13.edgeway.v1.AppliedR\x07applied\x12\x1a\n\x08warnings\x18\x02 \x03(\tR\x08warnings"Q\n\x07Applied\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12'
    b'\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12\x18\n\x07changed\x18\x03 \x01(\x08R\x07changed"=\n\rDeleteRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07vers'
    b'ion\x18\x02 \x01(\tR\x07version",\n\x0eDeleteResponse\x12\x1a\n\x08versions\x18\x01 \x03(\tR\x08versions" \n\nGetRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04na'
    b'me"d\n\x07Latency\x12\x15\n\x06p50_ms\x18\x01 \x01(\x01R\x05p50Ms\x12\x15\n\x06p95_ms\x18\x02 \x01(\x01R\x05p95Ms\x12\x15\n\x06p99_ms\x18\x03 \x01(\x01R\x05p99Ms\x12\x14\n\x05count\x18\x04 \x01('
    b'\x04R\x05count"\x82\x06\n\rVersionStatus\x12\x18\n\x07version\x18\x01 \x01(\tR\x07version\x12\x14\n\x05state\x18\x02 \x01(\tR\x05state\x12\x16\n\x06reason\x18\x03 \x01(\tR\x06reas'
    b'on\x12\x18\n\x07percent\x18\x04 \x01(\x05R\x07percent\x12\x18\n\x07current\x18\x05 \x01(\x08R\x07current\x12\x1a\n\x08previous\x18\x06 \x01(\x08R\x08previous\x12\x1a\n\x08checksum\x18\x07'
    b' \x01(\tR\x08checksum\x12\x1f\n\x0blast_update\x18\x08 \x01(\x01R\nlastUpdate\x12\x1a\n\x08requests\x18\t \x01(\x04R\x08requests\x12\x16\n\x06errors\x18\n \x01(\x04R\x06err'
    b'ors\x12-\n\x07latency\x18\x0b \x01(\x0b2\x13.edgeway.v1.LatencyR\x07latency\x12\x1f\n\x08accuracy\x18\x0c \x01(\x01H\x00R\x08accuracy\x88\x01\x01\x12\x19\n\x05drift\x18\r \x01'
    b'(\x01H\x01R\x05drift\x88\x01\x01\x12!\n\tagreement\x18\x0e \x01(\x01H\x02R\tagreement\x88\x01\x01\x120\n\x08progress\x18\x0f \x01(\x0b2\x14.edgeway.v1.ProgressR\x08progr'
    b'ess\x12\x16\n\x06shadow\x18\x10 \x01(\x08R\x06shadow\x12\x14\n\x05steps\x18\x11 \x03(\x05R\x05steps\x12:\n\x0faccuracy_detail\x18\x12 \x01(\x0b2\x11.edgeway.v1.ShareR\x0ea'
    b'ccuracyDetail\x12<\n\x10agreement_detail\x18\x13 \x01(\x0b2\x11.edgeway.v1.ShareR\x0fagreementDetail\x128\n\x0bcomparisons\x18\x14 \x03(\x0b'
    b'2\x16.edgeway.v1.ComparisonR\x0bcomparisons\x12!\n\x0cdrift_detail\x18\x15 \x01(\tR\x0bdriftDetailB\x0b\n\t_accuracyB\x08\n\x06_driftB'
    b'\x0c\n\n_agreement"4\n\x08Progress\x12\x12\n\x04done\x18\x01 \x01(\x04R\x04done\x12\x14\n\x05total\x18\x02 \x01(\x04R\x05total"Y\n\x05Share\x12\x14\n\x05right\x18\x01 \x01(\x04R\x05rig'
    b'ht\x12\x14\n\x05total\x18\x02 \x01(\x04R\x05total\x12\x10\n\x03low\x18\x03 \x01(\x01R\x03low\x12\x12\n\x04high\x18\x04 \x01(\x01R\x04high"_\n\nComparison\x12\x0e\n\x02of\x18\x01 \x01(\tR\x02of\x12\x17\n\x07'
    b'p_value\x18\x02 \x01(\x01R\x06pValue\x12\x12\n\x04here\x18\x03 \x01(\x01R\x04here\x12\x14\n\x05there\x18\x04 \x01(\x01R\x05there"]\n\x10DeploymentStatus\x12\x12\n\x04name\x18\x01 \x01('
    b'\tR\x04name\x125\n\x08versions\x18\x02 \x03(\x0b2\x19.edgeway.v1.VersionStatusR\x08versions"X\n\x16GetDeploymentsResponse\x12>\n\x0bdepl'
    b'oyments\x18\x01 \x03(\x0b2\x1c.edgeway.v1.DeploymentStatusR\x0bdeployments"\xc8\x02\n\x0cTargetStatus\x12\x1e\n\ndeployment\x18\x01 \x01(\tR\nd'
    b'eployment\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12\x16\n\x06worker\x18\x03 \x01(\tR\x06worker\x12\x14\n\x05state\x18\x04 \x01(\tR\x05state\x12\x16\n\x06reason\x18\x05 \x01('
    b'\tR\x06reason\x12\x14\n\x05since\x18\x06 \x01(\x01R\x05since\x12\x1e\n\x0bwait_p95_ms\x18\x07 \x01(\x01R\twaitP95Ms\x12\x1c\n\nrun_p95_ms\x18\x08 \x01(\x01R\x08runP95Ms\x12\x14\n'
    b'\x05share\x18\t \x01(\x01R\x05share\x12\x12\n\x04kind\x18\n \x01(\tR\x04kind\x12\x1e\n\nprovenance\x18\x0b \x01(\tR\nprovenance\x12\x1a\n\x08artifact\x18\x0c \x01(\tR\x08artif'
    b'act"H\n\x12GetTargetsResponse\x122\n\x07targets\x18\x01 \x03(\x0b2\x18.edgeway.v1.TargetStatusR\x07targets"\xa7\x04\n\x11AcceleratorSta'
    b'tus\x12\x16\n\x06worker\x18\x01 \x01(\tR\x06worker\x12\x18\n\x07backend\x18\x02 \x01(\tR\x07backend\x12\x12\n\x04kind\x18\x03 \x01(\tR\x04kind\x12\x10\n\x03pid\x18\x04 \x01(\x05R\x03pid\x12\x14\n\x05s'
    b'tate\x18\x05 \x01(\tR\x05state\x12\x16\n\x06reason\x18\x06 \x01(\tR\x06reason\x12\x14\n\x05since\x18\x07 \x01(\x01R\x05since\x12\x12\n\x04band\x18\x08 \x01(\tR\x04band\x12(\n\rtemperatu'
    b're_c\x18\t \x01(\x01H\x00R\x0ctemperatureC\x88\x01\x01\x12\x1a\n\x08restarts\x18\n \x01(\rR\x08restarts\x12\x1b\n\tin_flight\x18\x0b \x01(\rR\x08inFlight\x12\x1f\n\x0bqueue_'
    b'depth\x18\x0c \x01(\rR\nqueueDepth\x12\x16\n\x06device\x18\r \x01(\tR\x06device\x12\x18\n\x07runtime\x18\x0e \x01(\tR\x07runtime\x12\x14\n\x05sheds\x18\x0f \x01(\tR\x05sheds\x12'
    b'\x1a\n\x08forecast\x18\x10 \x01(\tR\x08forecast\x12\x1e\n\ndistrusted\x18\x11 \x01(\tR\ndistrusted\x12\x1c\n\tthrottled\x18\x12 \x01(\x08R\tthrottled\x12\x12\n\x04cod'
    b'e\x18\x13 \x01(\tR\x04code\x12\x16\n\x06remedy\x18\x14 \x01(\tR\x06remedyB\x10\n\x0e_temperature_c"\\\n\x17GetAcceleratorsResponse\x12A\n\x0caccelerato'
    b'rs\x18\x01 \x03(\x0b2\x1d.edgeway.v1.AcceleratorStatusR\x0caccelerators"\xb7\x01\n\x05Event\x12\x12\n\x04time\x18\x01 \x01(\x01R\x04time\x12\x12\n\x04kind\x18\x02 \x01('
    b'\tR\x04kind\x12\x1e\n\ndeployment\x18\x03 \x01(\tR\ndeployment\x12\x18\n\x07version\x18\x04 \x01(\tR\x07version\x12\x16\n\x06worker\x18\x05 \x01(\tR\x06worker\x12\x18\n\x07mes'
    b'sage\x18\x06 \x01(\tR\x07message\x12\x1a\n\x08sequence\x18\x07 \x01(\x04R\x08sequence">\n\x11GetEventsResponse\x12)\n\x06events\x18\x01 \x03(\x0b2\x11.edgeway.v'
    b'1.EventR\x06events"*\n\x12WatchEventsRequest\x12\x14\n\x05after\x18\x01 \x01(\x04R\x05after">\n\x0ePromoteRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04nam'
    b'e\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version"5\n\x0fRollbackRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x0e\n\x02to\x18\x02 \x01(\tR\x02to"\xa9\x01\n\x11SetTraffi'
    b'cRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12D\n\x07percent\x18\x02 \x03(\x0b2*.edgeway.v1.SetTrafficRequest.PercentEntryR\x07perce'
    b'nt\x1a:\n\x0cPercentEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\x05R\x05value:\x028\x01"*\n\x0eChangeResponse\x12\x18\n\x07message\x18\x01 \x01('
    b'\tR\x07message"\x0e\n\x0cDrainRequest"\x0f\n\rDrainResponse"Z\n\x0fFeedbackRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1d\n\nrequest_id'
    b'\x18\x02 \x01(\tR\trequestId\x12\x14\n\x05label\x18\x03 \x01(\tR\x05label"z\n\x10FeedbackResponse\x12\x18\n\x07message\x18\x01 \x01(\tR\x07message\x12\x18\n\x07version'
    b'\x18\x02 \x01(\tR\x07version\x12\x1c\n\tpredicted\x18\x03 \x01(\tR\tpredicted\x12\x14\n\x05right\x18\x04 \x01(\x08R\x05right2\xca\x06\n\x07Control\x12<\n\x05Apply\x12\x18.edgew'
    b'ay.v1.ApplyRequest\x1a\x19.edgeway.v1.ApplyResponse\x12?\n\x06Delete\x12\x19.edgeway.v1.DeleteRequest\x1a\x1a.edgeway.v1.'
    b'DeleteResponse\x12L\n\x0eGetDeployments\x12\x16.edgeway.v1.GetRequest\x1a".edgeway.v1.GetDeploymentsResponse\x12D\n\n'
    b'GetTargets\x12\x16.edgeway.v1.GetRequest\x1a\x1e.edgeway.v1.GetTargetsResponse\x12N\n\x0fGetAccelerators\x12\x16.edgeway.'
    b'v1.GetRequest\x1a#.edgeway.v1.GetAcceleratorsResponse\x12B\n\tGetEvents\x12\x16.edgeway.v1.GetRequest\x1a\x1d.edgewa'
    b'y.v1.GetEventsResponse\x12B\n\x0bWatchEvents\x12\x1e.edgeway.v1.WatchEventsRequest\x1a\x11.edgeway.v1.Event0\x01\x12A\n\x07Pr'
    b'omote\x12\x1a.edgeway.v1.PromoteRequest\x1a\x1a.edgeway.v1.ChangeResponse\x12C\n\x08Rollback\x12\x1b.edgeway.v1.RollbackR'
    b'equest\x1a\x1a.edgeway.v1.ChangeResponse\x12G\n\nSetTraffic\x12\x1d.edgeway.v1.SetTrafficRequest\x1a\x1a.edgeway.v1.Cha'
    b'ngeResponse\x12<\n\x05Drain\x12\x18.edgeway.v1.DrainRequest\x1a\x19.edgeway.v1.DrainResponse\x12E\n\x08Feedback\x12\x1b.edgeway.'
    b'v1.FeedbackRequest\x1a\x1c.edgeway.v1.FeedbackResponseb\x06proto3'
)
DESCRIPTOR = POOL.FindFileByName('edgeway/v1/control.proto')

ApplyRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['ApplyRequest'])
SignedManifests = GetMessageClass(DESCRIPTOR.message_types_by_name['SignedManifests'])
ApplyResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ApplyResponse'])
Applied = GetMessageClass(DESCRIPTOR.message_types_by_name['Applied'])
DeleteRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['DeleteRequest'])
DeleteResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['DeleteResponse'])
GetRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['GetRequest'])
Latency = GetMessageClass(DESCRIPTOR.message_types_by_name['Latency'])
VersionStatus = GetMessageClass(DESCRIPTOR.message_types_by_name['VersionStatus'])
Progress = GetMessageClass(DESCRIPTOR.message_types_by_name['Progress'])
Share = GetMessageClass(DESCRIPTOR.message_types_by_name['Share'])
Comparison = GetMessageClass(DESCRIPTOR.message_types_by_name['Comparison'])
DeploymentStatus = GetMessageClass(DESCRIPTOR.message_types_by_name['DeploymentStatus'])
GetDeploymentsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['GetDeploymentsResponse'])
TargetStatus = GetMessageClass(DESCRIPTOR.message_types_by_name['TargetStatus'])
GetTargetsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['GetTargetsResponse'])
AcceleratorStatus = GetMessageClass(DESCRIPTOR.message_types_by_name['AcceleratorStatus'])
GetAcceleratorsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['GetAcceleratorsResponse'])
Event = GetMessageClass(DESCRIPTOR.message_types_by_name['Event'])
GetEventsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['GetEventsResponse'])
WatchEventsRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['WatchEventsRequest'])
PromoteRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['PromoteRequest'])
RollbackRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['RollbackRequest'])
SetTrafficRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['SetTrafficRequest'])
ChangeResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['ChangeResponse'])
DrainRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['DrainRequest'])
DrainResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['DrainResponse'])
FeedbackRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['FeedbackRequest'])
FeedbackResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['FeedbackResponse'])

SERVICES = {
    'edgeway.v1.Control': {
        'Apply': Method('/edgeway.v1.Control/Apply', ApplyRequest, ApplyResponse, False, False),
        'Delete': Method('/edgeway.v1.Control/Delete', DeleteRequest, DeleteResponse, False, False),
        'GetDeployments': Method('/edgeway.v1.Control/GetDeployments', GetRequest, GetDeploymentsResponse, False, False),
        'GetTargets': Method('/edgeway.v1.Control/GetTargets', GetRequest, GetTargetsResponse, False, False),
        'GetAccelerators': Method('/edgeway.v1.Control/GetAccelerators', GetRequest, GetAcceleratorsResponse, False, False),
        'GetEvents': Method('/edgeway.v1.Control/GetEvents', GetRequest, GetEventsResponse, False, False),
        'WatchEvents': Method('/edgeway.v1.Control/WatchEvents', WatchEventsRequest, Event, False, True),
        'Promote': Method('/edgeway.v1.Control/Promote', PromoteRequest, ChangeResponse, False, False),
        'Rollback': Method('/edgeway.v1.Control/Rollback', RollbackRequest, ChangeResponse, False, False),
        'SetTraffic': Method('/edgeway.v1.Control/SetTraffic', SetTrafficRequest, ChangeResponse, False, False),
        'Drain': Method('/edgeway.v1.Control/Drain', DrainRequest, DrainResponse, False, False),
        'Feedback': Method('/edgeway.v1.Control/Feedback', FeedbackRequest, FeedbackResponse, False, False),
    },
}
