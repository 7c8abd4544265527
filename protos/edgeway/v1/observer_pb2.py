"""Generated from edgeway/v1/observer.proto by protos/generate.py: do not edit."""

from google.protobuf.message_factory import GetMessageClass

from edgeway.v1.pool import POOL

_FILE = POOL.AddSerializedFile(
    b'\n\x19edgeway/v1/observer.proto\x12\nedgeway.v1"\xb3\x02\n\nToObserver\x12)\n\x05watch\x18\x01 \x01(\x0b2\x11.edgeway.v1.WatchH\x00R\x05watc'
    b'h\x12,\n\x06forget\x18\x02 \x01(\x0b2\x12.edgeway.v1.ForgetH\x00R\x06forget\x122\n\x08answered\x18\x03 \x01(\x0b2\x14.edgeway.v1.ObservedH\x00R\x08answe'
    b'red\x122\n\x08compared\x18\x04 \x01(\x0b2\x14.edgeway.v1.ComparedH\x00R\x08compared\x12.\n\x06inputs\x18\x05 \x01(\x0b2\x14.edgeway.v1.ObservedH\x00R'
    b'\x06inputs\x12)\n\x05label\x18\x06 \x01(\x0b2\x11.edgeway.v1.LabelH\x00R\x05labelB\t\n\x07message"\x85\x01\n\x0cFromObserver\x126\n\x07figures\x18\x01 \x01(\x0b2'
    b'\x1a.edgeway.v1.VersionFiguresH\x00R\x07figures\x122\n\x08labelled\x18\x02 \x01(\x0b2\x14.edgeway.v1.LabelledH\x00R\x08labelledB\t\n\x07me'
    b'ssage"\xb1\x03\n\x05Watch\x12\x14\n\x05model\x18\x01 \x01(\tR\x05model\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12\x1c\n\treference\x18\x03 \x01(\tR\treference\x12!\n'
    b'\x0cdrift_output\x18\x04 \x01(\tR\x0bdriftOutput\x12!\n\x0cdrift_window\x18\x05 \x01(\rR\x0bdriftWindow\x12 \n\tmax_drift\x18\x06 \x01(\x01H\x00R\x08maxDri'
    b"ft\x88\x01\x01\x12'\n\x0ffeedback_output\x18\x07 \x01(\tR\x0efeedbackOutput\x12'\n\x0ffeedback_window\x18\x08 \x01(\rR\x0efeedbackWindow\x12$\n\x04rule\x18"
    b'\t \x01(\x0b2\x10.edgeway.v1.RuleR\x04rule\x12\x18\n\x07samples\x18\n \x01(\tR\x07samples\x12!\n\x0csample_bytes\x18\x0b \x01(\x04R\x0bsampleBytes\x12/\n\tag'
    b'reement\x18\x0c \x01(\x0b2\x11.edgeway.v1.CountR\tagreementB\x0c\n\n_max_drift"\x86\x01\n\x04Rule\x12\x17\n\x04rtol\x18\x01 \x01(\x01H\x00R\x04rtol\x88\x01\x01\x12\x12\n\x04a'
    b'tol\x18\x02 \x01(\x01R\x04atol\x12\x17\n\x04top1\x18\x03 \x01(\x01H\x01R\x04top1\x88\x01\x01\x12\x1b\n\x06cosine\x18\x04 \x01(\x01H\x02R\x06cosine\x88\x01\x01B\x07\n\x05_rtolB\x07\n\x05_top1B\t\n\x07_cosi'
    b'ne"1\n\x05Count\x12\x12\n\x04good\x18\x01 \x01(\x04R\x04good\x12\x14\n\x05total\x18\x02 \x01(\x04R\x05total"R\n\x06Forget\x12\x14\n\x05model\x18\x01 \x01(\tR\x05model\x12\x18\n\x07version'
    b'\x18\x02 \x01(\tR\x07version\x12\x18\n\x07samples\x18\x03 \x01(\tR\x07samples"j\n\x0eObservedTensor\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08datatype\x18\x02 \x01('
    b'\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape\x12\x12\n\x04data\x18\x04 \x01(\x0cR\x04data"\x8f\x01\n\x08Observed\x12\x14\n\x05model\x18\x01 \x01(\tR\x05model\x12\x18\n\x07vers'
    b'ion\x18\x02 \x01(\tR\x07version\x12\x1d\n\nrequest_id\x18\x03 \x01(\tR\trequestId\x124\n\x07tensors\x18\x04 \x03(\x0b2\x1a.edgeway.v1.ObservedTensorR\x07'
    b'tensors"\x9e\x01\n\x08Compared\x12\x14\n\x05model\x18\x01 \x01(\tR\x05model\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12.\n\x04real\x18\x03 \x03(\x0b2\x1a.edgeway.v1.'
    b'ObservedTensorR\x04real\x122\n\x06shadow\x18\x04 \x03(\x0b2\x1a.edgeway.v1.ObservedTensorR\x06shadow"j\n\x05Label\x12\x16\n\x06number\x18\x01 \x01('
    b'\x04R\x06number\x12\x14\n\x05model\x18\x02 \x01(\tR\x05model\x12\x1d\n\nrequest_id\x18\x03 \x01(\tR\trequestId\x12\x14\n\x05label\x18\x04 \x01(\tR\x05label"\xa0\x01\n\x08Labelle'
    b'd\x12\x16\n\x06number\x18\x01 \x01(\x04R\x06number\x12\x14\n\x05found\x18\x02 \x01(\x08R\x05found\x12\x18\n\x07version\x18\x03 \x01(\tR\x07version\x12\x1c\n\tpredicted\x18\x04 \x01(\tR\tpr'
    b'edicted\x12\x14\n\x05right\x18\x05 \x01(\x08R\x05right\x12\x18\n\x07problem\x18\x06 \x01(\tR\x07problem"\xcf\x01\n\x0eVersionFigures\x12\x14\n\x05model\x18\x01 \x01(\tR\x05model'
    b'\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12/\n\tagreement\x18\x03 \x01(\x0b2\x11.edgeway.v1.CountR\tagreement\x12-\n\x08accuracy\x18\x04 \x01(\x0b2\x11.'
    b'edgeway.v1.CountR\x08accuracy\x12-\n\x05drift\x18\x05 \x01(\x0b2\x17.edgeway.v1.DriftFigureR\x05drift"z\n\x0bDriftFigure\x12\x19\n\x05scor'
    b'e\x18\x01 \x01(\x01H\x00R\x05score\x88\x01\x01\x12\x18\n\x07answers\x18\x02 \x01(\x04R\x07answers\x12\x14\n\x05alarm\x18\x03 \x01(\x08R\x05alarm\x12\x16\n\x06detail\x18\x04 \x01(\tR\x06detailB\x08\n\x06_'
    b'scoreb\x06proto3'
)
DESCRIPTOR = POOL.FindFileByName('edgeway/v1/observer.proto')

ToObserver = GetMessageClass(DESCRIPTOR.message_types_by_name['ToObserver'])
FromObserver = GetMessageClass(DESCRIPTOR.message_types_by_name['FromObserver'])
Watch = GetMessageClass(DESCRIPTOR.message_types_by_name['Watch'])
Rule = GetMessageClass(DESCRIPTOR.message_types_by_name['Rule'])
Count = GetMessageClass(DESCRIPTOR.message_types_by_name['Count'])
Forget = GetMessageClass(DESCRIPTOR.message_types_by_name['Forget'])
ObservedTensor = GetMessageClass(DESCRIPTOR.message_types_by_name['ObservedTensor'])
Observed = GetMessageClass(DESCRIPTOR.message_types_by_name['Observed'])
Compared = GetMessageClass(DESCRIPTOR.message_types_by_name['Compared'])
Label = GetMessageClass(DESCRIPTOR.message_types_by_name['Label'])
Labelled = GetMessageClass(DESCRIPTOR.message_types_by_name['Labelled'])
VersionFigures = GetMessageClass(DESCRIPTOR.message_types_by_name['VersionFigures'])
DriftFigure = GetMessageClass(DESCRIPTOR.message_types_by_name['DriftFigure'])
